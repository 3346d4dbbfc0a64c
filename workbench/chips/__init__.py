"""Chips: a catalog, V4's work as operations, and the time they take."""

from workbench.chips.arithmetic import Arithmetic
from workbench.chips.catalog import Chip, chips, load_chip
from workbench.chips.clusters import Cluster, Level, clusters, load_cluster
from workbench.chips.kernels import KernelTime, kernel_time, kernel_times
from workbench.chips.mapping import Mapping
from workbench.chips.operations import Operation, operations
from workbench.chips.policy import Standing, performance_density, standing, standings, total_processing_power
from workbench.chips.predict import Prediction, predict
from workbench.chips.prices import ApiPrice, api_prices, power_kw, purchases, rent
from workbench.chips.quantity import Quantity
from workbench.chips.workload import Shard, Workload

__all__ = [
    "ApiPrice",
    "Arithmetic",
    "Chip",
    "Cluster",
    "KernelTime",
    "Level",
    "Mapping",
    "Operation",
    "Prediction",
    "Quantity",
    "Shard",
    "Standing",
    "Workload",
    "api_prices",
    "chips",
    "clusters",
    "kernel_time",
    "kernel_times",
    "load_chip",
    "load_cluster",
    "operations",
    "performance_density",
    "power_kw",
    "predict",
    "purchases",
    "rent",
    "standing",
    "standings",
    "total_processing_power",
]
