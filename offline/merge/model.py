"""The merge model: boosted trees from a candidate's features to P(interaction within the horizon).

Gradient boosting by histograms (scikit-learn; Ke et al., "LightGBM", NIPS 2017) on the log loss, with few leaves, many
candidates in each, and monotone in what should raise a probability: on one period, counts and trends are as good as
names of items, and trees that may do as they like learn which items that period sold. Across users of the same period
they seem worth several times what they are on the next one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper
from sklearn.ensemble import HistGradientBoostingClassifier

from serendipity.offline.merge.config import MergeConfig

_LEFT_OUT = ("unexpectedness", "novel", "interest_weight", "alignment_recent")
"""Features that are of no use to the model, or worse: the host's ranker may know better."""

_FREE = ("category_share",)
"""Features that may raise or lower a probability; `category_days` never raises it, all others never lower it."""

_FALLING = ("category_days",)
_REGULARISATION = 5.0
_TOLERANCE = 1e-4


def columns_read(names: Sequence[str]) -> list[int]:
    """Columns of the rank features that the model reads."""
    return [column for column, name in enumerate(names) if name not in _LEFT_OUT]


def fit_trees(
    features: NDArray[np.float32], hits: NDArray[np.bool_], names: Sequence[str], config: MergeConfig
) -> HistGradientBoostingClassifier:
    """Fit. features: [n, F], columns by name, those of `columns_read`; hits: [n], of both kinds."""
    trees = HistGradientBoostingClassifier(
        max_iter=config.trees,
        learning_rate=config.learning_rate,
        max_leaf_nodes=config.leaves,
        min_samples_leaf=config.leaf_candidates,
        l2_regularization=_REGULARISATION,
        monotonic_cst=[0 if name in _FREE else -1 if name in _FALLING else 1 for name in names],
        early_stopping=False,
        random_state=0,
    )
    return trees.fit(features, hits)


def to_onnx(trees: HistGradientBoostingClassifier, features: NDArray[np.float32]) -> bytes:
    """Write trees as ONNX: features, [m, F] float32 → probabilities, [m, 1].

    features: [n, F], some that it is tried on. Raises ValueError where the two differ by more than 0.0001.
    """
    columns: dict[str, list[int] | list[float] | list[str]] = {}

    def add(name: str, values: Sequence[object]) -> None:
        columns.setdefault(name, []).extend(values)  # type: ignore[arg-type]

    for number, (tree,) in enumerate(trees._predictors):
        nodes = tree.nodes
        is_leaf = nodes["is_leaf"].astype(bool)
        leaves = np.flatnonzero(is_leaf).tolist()
        add("nodes_treeids", [number] * len(nodes))
        add("nodes_nodeids", list(range(len(nodes))))
        add("nodes_modes", ["LEAF" if leaf else "BRANCH_LEQ" for leaf in is_leaf])
        add("nodes_featureids", np.where(is_leaf, 0, nodes["feature_idx"]).tolist())
        add("nodes_values", np.where(is_leaf, 0, _rounded_down(nodes["num_threshold"])).tolist())
        add("nodes_truenodeids", np.where(is_leaf, 0, nodes["left"]).tolist())
        add("nodes_falsenodeids", np.where(is_leaf, 0, nodes["right"]).tolist())
        add("target_treeids", [number] * len(leaves))
        add("target_nodeids", leaves)
        add("target_ids", [0] * len(leaves))
        add("target_weights", nodes["value"][leaves].tolist())
    base = float(np.ravel(trees._baseline_prediction)[0])
    node = helper.make_node(
        "TreeEnsembleRegressor",
        ["features"],
        ["log_odds"],
        domain="ai.onnx.ml",
        n_targets=1,
        base_values=[base],
        **columns,
    )
    graph = helper.make_graph(
        [node, helper.make_node("Sigmoid", ["log_odds"], ["probabilities"])],
        "merge",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, features.shape[1]])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 1])],
    )
    versions = [helper.make_opsetid("ai.onnx.ml", 3), helper.make_opsetid("", 17)]
    model: bytes = helper.make_model(graph, opset_imports=versions, ir_version=9).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (exported,) = session.run(None, {"features": features})
    apart = float(np.abs(exported[:, 0] - trees.predict_proba(features)[:, 1]).max(initial=0))
    if not apart <= _TOLERANCE:
        raise ValueError(f"merge model: found probabilities {apart:g} apart from the exported ones, expected the same")
    return model


def _rounded_down(thresholds: NDArray[np.float64]) -> NDArray[np.float32]:
    """Round to float32, never above: what is ≤ the one must stay ≤ the other."""
    single = thresholds.astype(np.float32)
    above = single > thresholds
    single[above] = np.nextafter(single[above], np.float32(-np.inf))
    return single
