"""A budget that stops before it is exceeded: a request begins only if its dearest outcome can still be paid."""

from __future__ import annotations

import asyncio

from serendipity.offline.language_models.language_model import LanguageModelError


class BudgetExhausted(LanguageModelError):
    """The next request could exceed the budget."""


class Budget:
    """Belongs to one event loop. limit: None for no limit. spent: before."""

    def __init__(self, limit: float | None, spent: float = 0.0) -> None:
        self.spent = spent
        self._limit = limit
        self._reserved: list[float] = []
        self._settled = asyncio.Condition()

    async def reserve(self, cost: float) -> None:
        """Set aside what a request may cost, once that is possible. Raises BudgetExhausted when it cannot be."""
        async with self._settled:
            while self._limit is not None and self.spent + sum(self._reserved) + cost > self._limit:
                if not self._reserved:
                    raise BudgetExhausted(
                        f"budget: found {self.spent:.4f} of {self._limit:.4f} spent, and the next request may cost "
                        f"{cost:.4f}; expected a higher budget"
                    )
                await self._settled.wait()
            self._reserved.append(cost)

    async def settle(self, reserved: float, cost: float) -> None:
        """Take what a request did cost from what was set aside for it."""
        async with self._settled:
            self._reserved.remove(reserved)
            self.spent += cost
            self._settled.notify_all()
