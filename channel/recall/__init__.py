"""The way of a request: query → hydrate → sources → filters → scorer → selector → answer."""
