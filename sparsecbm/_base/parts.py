"""Every variant of every kind, a line each: the package's table of contents.

A line names where the part lives; nothing is imported until it is used, so a configuration is checked without torch.
Parts from outside the package call ``register`` on the same tables (see CONTRIBUTING.md, "How to add").
"""

from __future__ import annotations

from typing import Any

from sparsecbm._base.registry import Registry

LOSSES: Registry[Any] = Registry(
    "loss",
    "bottleneck.losses",
    {
        "gumbel": "gumbel:GumbelLoss",
        "contrastive": "contrastive:ContrastiveLoss",
        "l1": "l1:L1Loss",
        "similarity": "similarity:SimilarityLoss",
        "none": "none:NoLoss",
    },
)

PUBLISHED_LOSSES: Registry[Any] = Registry(
    "loss with a published form",
    "bottleneck.losses",
    {
        "gumbel": "gumbel:PublishedGumbelLoss",
        "contrastive": "contrastive:PublishedContrastiveLoss",
        "l1": "l1:PublishedL1Loss",
        "similarity": "similarity:PublishedSimilarityLoss",
        "none": "none:NoLoss",
    },
)

GATES: Registry[Any] = Registry(
    "gate",
    "bottleneck.gates",
    {
        "dense": "dense:DenseGate",
        "presence": "presence:PresenceGate",
        "top_k": "top_k:TopKGate",
        "gumbel_top_k": "top_k:GumbelTopKGate",
        "soft_threshold": "soft_threshold:SoftThresholdGate",
        "binary_concrete": "binary_concrete:BinaryConcreteGate",
    },
)

TIES: Registry[Any] = Registry(
    "tie",
    "bottleneck.ties",
    {"exact": "exact:ExactTie", "shared": "shared:SharedTie", "free": "free:FreeTie", "earned": "earned:EarnedTie"},
)

SELECTIONS: Registry[Any] = Registry(
    "method",
    "heads.selection",
    {
        "path_cut": "path:select_cut",
        "path": "path:select",
        "forward": "forward:select",
        "splice": "splice:select",
    },
)

SEARCH_RULES: Registry[Any] = Registry(
    "similarity",
    "estimators.matrix_search",
    {
        "cosine": "concept_space:CosineRule",
        "cubed": "concept_space:CubedRule",
        "max": "concept_space:MaxScoreRule",
        "column_normalised": "concept_space:ColumnNormalisedRule",
        "separating": "concept_space:SeparatingRule",
        "whitened": "whitened:WhitenedRule",
        "sparse": "sparse:SparseRule",
        "contrast": "sparse:ContrastRule",
    },
)

METHODS: Registry[Any] = Registry(
    "method",
    "estimators.methods",
    {
        "label_free": "label_free:LabelFreeCBM",
        "post_hoc": "post_hoc:PostHocCBM",
        "post_hoc_h": "post_hoc:with_residual",
        "labo": "labo:LaBo",
        "cdm": "cdm:ConceptDiscoveryModel",
        "vlg": "vlg:VLGCBM",
        "res_cbm": "residual:ResidualCBM",
        "dn_cbm": "dn_cbm:DNCBM",
        "splice": "splice:SpliceCBM",
        "lm4cv": "lm4cv:LM4CV",
        "sparsecbm_gumbel": "sparse_cbm:gumbel",
        "sparsecbm_contrastive": "sparse_cbm:contrastive",
        "sparsecbm_l1": "sparse_cbm:l1",
        "earned_8": "sparse_cbm:earned_8",
        "earned_32": "sparse_cbm:earned_32",
        "exact_32": "sparse_cbm:exact_32",
    },
)

DICTIONARIES: Registry[Any] = Registry(
    "kind",
    "dictionary.kinds",
    {
        "top_k": "top_k:TopK",
        "batch_top_k": "batch_top_k:BatchTopK",
        "matryoshka": "matryoshka:Matryoshka",
        "concrete": "concrete:Concrete",
    },
)

DICTIONARY_BASELINES: Registry[Any] = Registry(
    "baseline kind",
    "dictionary",
    {name: f"baselines:{name}" for name in ("dictionary_learning", "nmf", "k_means", "pca", "random")},
)

ENCODERS: Registry[Any] = Registry(
    "encoder",
    "encoders",
    {
        "bundled": "bundled_clip:load",
        "open_clip": "open_clip:load_open_clip",
        "transformers": "transformers:load_transformers",
    },
)

MAPS: Registry[Any] = Registry(
    "method of maps",
    "encoders.maps",
    {"exact": "exact:Exact", "gradients": "any_encoder:Gradients", "occlusion": "any_encoder:Occlusion"},
)

IMAGES: Registry[Any] = Registry(
    "images",
    "data",
    {"birds": "birds:load", "folder": "folder:load", "hub": "tables:load_hub", "parquet": "tables:load_parquet"},
)

PRIORS: Registry[Any] = Registry(
    "prior",
    "vae.priors",
    {"bernoulli": "factorial:BernoulliPrior", "categorical": "factorial:CategoricalPrior", "rbm": "rbm:RBMPrior"},
)

OBJECTIVES: Registry[Any] = Registry(
    "objective",
    "vae.objectives",
    {
        "mass": "mass:MassObjective",
        "density": "density:DensityObjective",
        "analytic": "analytic:AnalyticObjective",
        "score_function": "score_function:ScoreFunctionObjective",
        "exact": "exact:ExactObjective",
    },
)

NEGATIVE_PHASES: Registry[Any] = Registry(
    "negative phase",
    "vae.negative",
    {
        "persistent": "persistent:PersistentNegative",
        "annealing": "annealing:AnnealingNegative",
        "tempering": "tempering:TemperingNegative",
        "exact": "exact:ExactNegative",
    },
)

LIKELIHOODS: Registry[Any] = Registry(
    "likelihood",
    "vae",
    {"bernoulli": "likelihoods:BernoulliLikelihood", "gaussian": "likelihoods:GaussianLikelihood"},
)

CLASSIFIERS: Registry[Any] = Registry(
    "classifier", "vae", {"stack": "networks:Stack", "convolutional": "convolutional:ConvolutionalStack"}
)

LATENTS: Registry[Any] = Registry(
    "latents",
    "vae",
    {
        "bernoulli": "latents:BernoulliLatents",
        "categorical": "latents:CategoricalLatents",
        "spike_exponential": "spike_exponential:SpikeExponentialLatents",
        "power": "power:PowerLatents",
    },
)
