"""The models that `bench.prunability` cuts: keras.applications and keras-hub, with random weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

Maker = Callable[[], keras.Model]

_BASE = {"num_layers": 12, "hidden_dim": 768, "intermediate_dim": 3072, "num_heads": 12}
_SMALL = {"vocabulary_size": 512, "num_layers": 4, "hidden_dim": 128, "intermediate_dim": 512}
_HEADS = {**_SMALL, "num_heads": 8}
_GROUPED = {**_SMALL, "num_query_heads": 8, "num_key_value_heads": 4}
_IMAGE = (96, 96, 3)
_VISION = {
    "image_shape": _IMAGE,
    "patch_size": 16,
    "num_layers": 4,
    "num_heads": 4,
    "hidden_dim": 128,
}


def applications() -> dict[str, Maker]:
    """The models of keras.applications, with small inputs where they are allowed."""
    found = {}
    for name in dir(keras.applications):
        maker = getattr(keras.applications, name)
        if callable(maker) and name[0].isupper():
            found[name] = lambda maker=maker: _application(maker)
    return found


def _application(maker: Callable[..., keras.Model]) -> keras.Model:
    try:
        return maker(weights=None, input_shape=_IMAGE)
    except ValueError:
        return maker(weights=None)


def _hub(name: str, **options: Any) -> Maker:
    def make() -> keras.Model:
        import keras_hub

        return getattr(keras_hub.models, name)(**options)

    return make


def _task(name: str, backbone: str, options: dict[str, Any], **own: Any) -> Maker:
    def make() -> keras.Model:
        import keras_hub

        return getattr(keras_hub.models, name)(
            backbone=_hub(backbone, **options)(), preprocessor=None, **own
        )

    return make


def backbones() -> dict[str, Maker]:
    """Backbones of keras-hub: base sizes of those that are used most, small ones of the others."""
    options: dict[str, dict[str, Any]] = {**_text_base(), **_text_small(), **_vision()}
    return {name: _hub(name, **own) for name, own in options.items()}


def _text_base() -> dict[str, dict[str, Any]]:
    return {
        "BertBackbone": {"vocabulary_size": 30522, **_BASE},
        "RobertaBackbone": {"vocabulary_size": 50265, **_BASE},
        "DistilBertBackbone": {"vocabulary_size": 30522, **_BASE, "num_layers": 6},
        "AlbertBackbone": {"vocabulary_size": 30000, "embedding_dim": 128, **_BASE},
        "DebertaV3Backbone": {"vocabulary_size": 128100, **_BASE},
        "GPT2Backbone": {"vocabulary_size": 50257, **_BASE},
    }


def _text_small() -> dict[str, dict[str, Any]]:
    electra = {
        "vocab_size": 512,
        "num_layers": 4,
        "num_heads": 8,
        "hidden_dim": 128,
        "embedding_dim": 64,
        "intermediate_dim": 512,
    }
    falcon = {**_SMALL, "num_attention_heads": 8}
    qwen_moe = {
        **_GROUPED,
        "moe_intermediate_dim": 256,
        "shared_expert_intermediate_dim": 256,
        "num_experts": 4,
        "top_k": 2,
    }
    smol = {
        **_SMALL,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "rope_layer_enabled_list": [True, False] * 2,
        "layer_types": ["full_attention"] * 4,
        "mlp_bias": False,
        "layer_norm_epsilon": 1e-6,
        "max_position_embeddings": 512,
        "rope_theta": 10000.0,
        "partial_rotary_factor": 1.0,
    }
    gemma3 = {**_GROUPED, "head_dim": 16, "image_size": 32}
    moonshine = {
        "vocabulary_size": 512,
        "filter_dim": 128,
        "encoder_num_layers": 2,
        "decoder_num_layers": 2,
        "hidden_dim": 128,
        "intermediate_dim": 512,
        "encoder_num_heads": 8,
        "decoder_num_heads": 8,
    }
    clip = {**_HEADS, "embedding_dim": 128, "max_sequence_length": 16}
    return {
        "XLMRobertaBackbone": {**_HEADS, "max_sequence_length": 128},
        "ElectraBackbone": electra,
        "FNetBackbone": {**_SMALL, "max_sequence_length": 128},
        "OPTBackbone": {**_HEADS, "max_sequence_length": 128},
        "BartBackbone": {**_HEADS, "max_sequence_length": 128},
        "T5Backbone": _HEADS,
        "WhisperBackbone": {
            **_HEADS,
            "max_encoder_sequence_length": 200,
            "max_decoder_sequence_length": 64,
        },
        "LlamaBackbone": _GROUPED,
        "Llama3Backbone": _GROUPED,
        "MistralBackbone": _GROUPED,
        "GemmaBackbone": {**_GROUPED, "head_dim": 16},
        "Gemma3Backbone": gemma3,
        "QwenBackbone": _GROUPED,
        "Qwen3Backbone": {**_GROUPED, "head_dim": 16, "sliding_window_size": None},
        "QwenMoeBackbone": qwen_moe,
        "MixtralBackbone": {**_GROUPED, "num_experts": 4},
        "Phi3Backbone": _GROUPED,
        "FalconBackbone": falcon,
        "BloomBackbone": _HEADS,
        "GPTNeoXBackbone": _HEADS,
        "ESM2Backbone": _HEADS,
        "RoformerV2Backbone": {**_HEADS, "head_size": 16},
        "SmolLM3Backbone": smol,
        "XLNetBackbone": _HEADS,
        "MoonshineBackbone": moonshine,
        "CLIPTextEncoder": clip,
        "SigLIPTextEncoder": clip,
    }


def _vision() -> dict[str, dict[str, Any]]:
    patches = {**_VISION, "intermediate_dim": 512}
    return {
        "ViTBackbone": {
            "image_shape": (224, 224, 3),
            "patch_size": 16,
            "num_layers": 12,
            "num_heads": 12,
            "hidden_dim": 768,
            "mlp_dim": 3072,
        },
        "DeiTBackbone": patches,
        "DINOV2Backbone": patches,
        "DINOV3Backbone": patches,
        "CLIPVisionEncoder": patches,
        "SigLIPVisionEncoder": patches,
        "MiTBackbone": {
            "layerwise_depths": [2, 2, 2, 2],
            "num_layers": 4,
            "layerwise_num_heads": [1, 2, 5, 8],
            "layerwise_sr_ratios": [8, 4, 2, 1],
            "max_drop_path_rate": 0.1,
            "layerwise_patch_sizes": [7, 3, 3, 3],
            "layerwise_strides": [4, 2, 2, 2],
            "hidden_dims": [32, 64, 160, 256],
            "image_shape": _IMAGE,
        },
        "SwinTransformerBackbone": {
            "image_shape": (224, 224, 3),
            "embed_dim": 96,
            "depths": (2, 2, 6, 2),
            "num_heads": (3, 6, 12, 24),
            "window_size": 7,
        },
        **_convolutional(),
    }


def _convolutional() -> dict[str, dict[str, Any]]:
    resnet = {
        "input_conv_filters": [64],
        "input_conv_kernel_sizes": [7],
        "stackwise_num_filters": [64, 128, 256, 512],
        "stackwise_num_blocks": [2, 2, 2, 2],
        "stackwise_num_strides": [1, 2, 2, 2],
        "block_type": "basic_block",
        "image_shape": _IMAGE,
    }
    cspnet = {
        "stem_filters": 32,
        "stem_kernel_size": 3,
        "stem_strides": 1,
        "stackwise_depth": [1, 2, 4],
        "stackwise_strides": [2, 2, 2],
        "stackwise_num_filters": [64, 128, 256],
        "bottle_ratio": [0.5, 1.0, 1.0],
        "block_ratio": [1.0, 0.5, 0.5],
        "expand_ratio": [2.0, 1.0, 1.0],
        "stem_padding": "same",
        "block_type": "dark_block",
        "stage_type": "csp",
        "image_shape": _IMAGE,
    }
    efficientnet = {
        "stackwise_width_coefficients": [1.0] * 7,
        "stackwise_depth_coefficients": [1.0] * 7,
        "stackwise_kernel_sizes": [3, 3, 5, 3, 5, 5, 3],
        "stackwise_num_repeats": [1, 2, 2, 3, 3, 4, 1],
        "stackwise_input_filters": [32, 16, 24, 40, 80, 112, 192],
        "stackwise_output_filters": [16, 24, 40, 80, 112, 192, 320],
        "stackwise_expansion_ratios": [1, 6, 6, 6, 6, 6, 6],
        "stackwise_squeeze_and_excite_ratios": [0.25] * 7,
        "stackwise_strides": [1, 2, 2, 2, 1, 2, 1],
        "stackwise_block_types": ["v1"] * 7,
        "input_shape": _IMAGE,
    }
    mobilenet = {
        "stackwise_expansion": [[40, 56], [64, 144, 144], [72, 72], [144, 288, 288]],
        "stackwise_num_blocks": [2, 3, 2, 3],
        "stackwise_num_filters": [[16, 16], [24, 24, 24], [24, 24], [48, 48, 48]],
        "stackwise_kernel_size": [[3, 3], [5, 5, 5], [5, 5], [5, 5, 5]],
        "stackwise_num_strides": [[2, 1], [2, 1, 1], [1, 1], [2, 1, 1]],
        "stackwise_se_ratio": [[None, None], [0.25] * 3, [0.3, 0.3], [0.3, 0.25, 0.25]],
        "stackwise_activation": [
            ["relu", "relu"],
            ["hard_swish"] * 3,
            ["hard_swish"] * 2,
            ["hard_swish"] * 3,
        ],
        "stackwise_padding": [[1, 1], [2, 2, 2], [2, 2], [2, 2, 2]],
        "output_num_filters": 288,
        "depthwise_filters": 8,
        "depthwise_stride": 2,
        "depthwise_residual": False,
        "last_layer_filter": 288,
        "squeeze_and_excite": 0.5,
        "image_shape": _IMAGE,
    }
    hgnet = {
        "depths": [1, 2, 2],
        "embedding_size": 32,
        "hidden_sizes": [64, 128, 256],
        "stem_channels": [3, 16, 32],
        "hidden_act": "relu",
        "use_learnable_affine_block": False,
        "stackwise_stage_filters": [
            [32, 16, 64, 1, 3, 3],
            [64, 32, 128, 1, 3, 3],
            [128, 64, 256, 2, 3, 5],
        ],
        "apply_downsample": [False, True, True],
        "use_lightweight_conv_block": [False, False, True],
        "image_shape": _IMAGE,
    }
    return {
        "ResNetBackbone": resnet,
        "DenseNetBackbone": {"stackwise_num_repeats": [6, 12, 24, 16], "image_shape": _IMAGE},
        "EfficientNetBackbone": efficientnet,
        "MobileNetBackbone": mobilenet,
        "VGGBackbone": {
            "stackwise_num_repeats": [2, 2, 3, 3, 3],
            "stackwise_num_filters": [64, 128, 256, 512, 512],
            "image_shape": _IMAGE,
        },
        "CSPNetBackbone": cspnet,
        "XceptionBackbone": {
            "stackwise_conv_filters": [[32, 64], [128, 128], [256, 256], [728, 728]],
            "stackwise_pooling": [False, True, True, False],
            "image_shape": _IMAGE,
        },
        "HGNetV2Backbone": hgnet,
    }


def tasks() -> dict[str, Maker]:
    """Backbones with a head: their residual width is no output any more, so it can be cut too."""
    base = _text_base()
    return {
        "BertTextClassifier": _task(
            "BertTextClassifier", "BertBackbone", base["BertBackbone"], num_classes=2
        ),
        "DistilBertTextClassifier": _task(
            "DistilBertTextClassifier",
            "DistilBertBackbone",
            base["DistilBertBackbone"],
            num_classes=2,
        ),
        "RobertaTextClassifier": _task(
            "RobertaTextClassifier", "RobertaBackbone", base["RobertaBackbone"], num_classes=2
        ),
        "DebertaV3TextClassifier": _task(
            "DebertaV3TextClassifier", "DebertaV3Backbone", base["DebertaV3Backbone"], num_classes=2
        ),
        "GPT2CausalLM": _task("GPT2CausalLM", "GPT2Backbone", base["GPT2Backbone"]),
        "ViTImageClassifier": _task(
            "ViTImageClassifier", "ViTBackbone", _vision()["ViTBackbone"], num_classes=10
        ),
    }
