"""The configuration of a run: one ``RunConfig``. A preset is a ``RunConfig`` written as YAML.

Every value has one ``Field`` in ``sections``, which feeds validation, ``--set``, the form and the help. The dotted
paths (``rollout.group_size``) must not change, because people script against them.
"""

from aapo_desk.config.algorithms import METHODS, REFERENCE_ALGORITHMS, Choice, Method, Number, Switch
from aapo_desk.config.problems import ConfigError, Problem
from aapo_desk.config.resolving import (
    differences,
    field_paths,
    load_yaml,
    nearest_key,
    parse_set,
    resolve,
    user_path,
    value_at,
)
from aapo_desk.config.sections import (
    AlgorithmConfig,
    EvaluationConfig,
    Int,
    LoraConfig,
    ModelConfig,
    OptimizerConfig,
    RewardConfig,
    RolloutConfig,
    RunConfig,
    RunSection,
    Section,
    TaskConfig,
    WarmStartConfig,
    banks_reference,
    departures,
)
from aapo_desk.config.settings import Setting, settings

__all__ = [
    "METHODS",
    "REFERENCE_ALGORITHMS",
    "AlgorithmConfig",
    "Choice",
    "ConfigError",
    "EvaluationConfig",
    "Int",
    "LoraConfig",
    "Method",
    "ModelConfig",
    "Number",
    "OptimizerConfig",
    "Problem",
    "RewardConfig",
    "RolloutConfig",
    "RunConfig",
    "RunSection",
    "Section",
    "Setting",
    "Switch",
    "TaskConfig",
    "WarmStartConfig",
    "banks_reference",
    "departures",
    "differences",
    "field_paths",
    "load_yaml",
    "nearest_key",
    "parse_set",
    "resolve",
    "settings",
    "user_path",
    "value_at",
]
