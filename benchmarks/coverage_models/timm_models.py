"""One small model for each family of timm, with random weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from coverage_models.case import Case, images, randomise


@dataclass(frozen=True)
class _Model:
    """A builder's name, the side of its smallest image (maps of one pixel avoided), and options of its builder."""

    name: str
    size: int = 64
    options: Mapping[str, Any] = field(default_factory=dict)


FAMILIES: dict[str, _Model] = {
    "resnet": _Model("resnet18"),
    "resnet_bottleneck_d": _Model("resnet26d"),
    "resnext": _Model("resnext50_32x4d"),
    "wide_resnet": _Model("wide_resnet50_2"),
    "seresnet": _Model("seresnet18"),
    "ecaresnet": _Model("ecaresnet26t"),
    "resnet_rs": _Model("resnetrs50"),
    "resnetv2": _Model("resnetv2_18"),
    "bit": _Model("resnetv2_50x1_bit"),
    "resnest": _Model("resnest14d"),
    "res2net": _Model("res2net50_14w_8s"),
    "skresnet": _Model("skresnet18"),
    "senet": _Model("legacy_seresnet18"),
    "tresnet": _Model("tresnet_m"),
    "densenet": _Model("densenet121"),
    "rdnet": _Model("rdnet_tiny"),
    "vgg": _Model("vgg11_bn"),
    "inception_v3": _Model("inception_v3", 96),
    "inception_v4": _Model("inception_v4", 96),
    "inception_resnet_v2": _Model("inception_resnet_v2", 96),
    "xception": _Model("legacy_xception"),
    "xception_aligned": _Model("xception41"),
    "nasnet": _Model("nasnetalarge"),
    "pnasnet": _Model("pnasnet5large"),
    "dla": _Model("dla46_c"),
    "dla_res2net": _Model("dla60_res2net"),
    "dpn": _Model("dpn48b"),
    "hrnet": _Model("hrnet_w18_small"),
    "selecsls": _Model("selecsls42"),
    "cspresnet": _Model("cspresnet50"),
    "cspdarknet": _Model("cs3darknet_s"),
    "cspnext": _Model("cspnext_tiny"),
    "darknet": _Model("darknet17"),
    "efficientnet": _Model("efficientnet_b0"),
    "efficientnetv2": _Model("tf_efficientnetv2_b0"),
    "efficientnet_cc": _Model("efficientnet_cc_b0_4e"),
    "efficientnet_lite": _Model("efficientnet_lite0"),
    "mobilenetv1": _Model("mobilenetv1_100"),
    "mobilenetv2": _Model("mobilenetv2_050"),
    "mobilenetv3": _Model("mobilenetv3_small_050"),
    "mobilenetv4": _Model("mobilenetv4_conv_small_035"),
    "mobilenetv4_hybrid": _Model("mobilenetv4_hybrid_medium_075"),
    "mobilenetv5": _Model("mobilenetv5_base"),
    "fbnet": _Model("fbnetc_100"),
    "fbnetv3": _Model("fbnetv3_b"),
    "spnasnet": _Model("spnasnet_100"),
    "mnasnet": _Model("mnasnet_small"),
    "ghostnet": _Model("ghostnet_050"),
    "ghostnetv2": _Model("ghostnetv2_100"),
    "ghostnetv3": _Model("ghostnetv3_050"),
    "lcnet": _Model("lcnet_035"),
    "lcnetv2": _Model("lcnetv2_small"),
    "tinynet": _Model("tinynet_e"),
    "rexnet": _Model("rexnet_100"),
    "mixnet": _Model("mixnet_s"),
    "hardcorenas": _Model("hardcorenas_a"),
    "repvgg": _Model("repvgg_a0"),
    "repghost": _Model("repghostnet_050"),
    "regnetx": _Model("regnetx_002"),
    "regnety": _Model("regnety_002"),
    "regnetv": _Model("regnetv_040"),
    "regnetz": _Model("regnetz_005"),
    "nfnet": _Model("nfnet_l0"),
    "dm_nfnet": _Model("dm_nfnet_f0"),
    "nf_regnet": _Model("nf_regnet_b0"),
    "vovnet": _Model("ese_vovnet19b_slim_dw"),
    "convnext": _Model("convnext_atto"),
    "convnextv2": _Model("convnextv2_atto"),
    "inception_next": _Model("inception_next_atto"),
    "edgenext": _Model("edgenext_xx_small"),
    "convmixer": _Model("convmixer_768_32"),
    "resmlp": _Model("resmlp_12_224", 224),
    "mixer": _Model("mixer_s32_224", 224),
    "gmixer": _Model("gmixer_12_224", 224),
    "gmlp": _Model("gmlp_ti16_224", 224),
    "vit": _Model("vit_tiny_patch16_224", 224),
    "vit_hybrid": _Model("vit_tiny_r_s16_p8_224", 224),
    "vit_relpos": _Model("vit_relpos_small_patch16_224", 224),
    "vit_siglip": _Model("vit_base_patch32_siglip_256", 64, {"img_size": 64}),
    "vit_dinov2": _Model("vit_small_patch14_dinov2", 56, {"img_size": 56}),
    "vit_dinov3": _Model("vit_small_patch16_dinov3"),
    "flexivit": _Model("flexivit_small", 96, {"img_size": 96}),
    "samvit": _Model("samvit_base_patch16_224"),
    "deit": _Model("deit_tiny_distilled_patch16_224", 224),
    "deit3": _Model("deit3_small_patch16_224", 224),
    "beit": _Model("beit_base_patch16_224", 64, {"img_size": 64}),
    "beitv2": _Model("beitv2_base_patch16_224", 224),
    "eva": _Model("eva_large_patch14_196", 196, {"depth": 2}),
    "eva02": _Model("eva02_tiny_patch14_224", 224),
    "cait": _Model("cait_xxs24_224", 224),
    "xcit": _Model("xcit_nano_12_p16_224"),
    "pit": _Model("pit_ti_224", 224),
    "pvt_v2": _Model("pvt_v2_b0"),
    "levit": _Model("levit_128s", 224),
    "levit_conv": _Model("levit_conv_128s", 224),
    "swin": _Model("swin_tiny_patch4_window7_224", 224),
    "swinv2": _Model("swinv2_tiny_window8_256", 256),
    "swinv2_cr": _Model("swinv2_cr_tiny_224", 224),
    "twins": _Model("twins_svt_small"),
    "twins_pcpvt": _Model("twins_pcpvt_small"),
    "tnt": _Model("tnt_s_patch16_224", 224),
    "coat": _Model("coat_lite_tiny", 224),
    "coatnet": _Model("coatnet_pico_rw_224", 224),
    "maxvit": _Model("maxvit_pico_rw_256", 256),
    "convit": _Model("convit_tiny", 224),
    "crossvit": _Model("crossvit_9_240"),
    "volo": _Model("volo_d1_224", 224),
    "visformer": _Model("visformer_tiny", 224),
    "nest": _Model("nest_tiny", 224),
    "jx_nest": _Model("nest_tiny_jx", 224),
    "sequencer": _Model("sequencer2d_s"),
    "poolformer": _Model("poolformer_s12"),
    "poolformerv2": _Model("poolformerv2_s12"),
    "caformer": _Model("caformer_s18"),
    "convformer": _Model("convformer_s18"),
    "efficientformer": _Model("efficientformer_l1", 224),
    "efficientformerv2": _Model("efficientformerv2_s0", 224),
    "efficientvit_mit": _Model("efficientvit_b0"),
    "efficientvit_msra": _Model("efficientvit_m0"),
    "mobileone": _Model("mobileone_s0"),
    "mobilevit": _Model("mobilevit_xxs"),
    "mobilevitv2": _Model("mobilevitv2_050"),
    "fastvit": _Model("fastvit_t8"),
    "focalnet": _Model("focalnet_tiny_srf"),
    "gcvit": _Model("gcvit_xxtiny", 224),
    "davit": _Model("davit_tiny"),
    "hiera": _Model("hiera_tiny_224", 224),
    "mambaout": _Model("mambaout_femto"),
    "mvitv2": _Model("mvitv2_tiny"),
    "hgnet": _Model("hgnet_tiny"),
    "hgnetv2": _Model("hgnetv2_b0"),
    "tiny_vit": _Model("tiny_vit_5m_224"),
    "repvit": _Model("repvit_m0_9"),
    "fasternet": _Model("fasternet_t0"),
    "starnet": _Model("starnet_s1"),
    "shvit": _Model("shvit_s1"),
    "halonet": _Model("halonet26t", 256),
    "lambda_resnet": _Model("lambda_resnet26t"),
    "botnet": _Model("botnet26t_256", 256),
    "bat_resnext": _Model("bat_resnext26ts", 256),
    "gernet": _Model("gernet_s"),
    "gcresnet": _Model("gcresnet33ts"),
    "nextvit": _Model("nextvit_small"),
    "swiftformer": _Model("swiftformer_xs"),
    "vitamin": _Model("vitamin_small_224", 224),
    "efficientvim": _Model("efficientvim_m1"),
    "iformer": _Model("iformer_t"),
    "lowformer": _Model("lowformer_b0"),
    "cpubone": _Model("cpubone_nano"),
    "csatv2": _Model("csatv2"),
    "naflexvit": _Model("naflexvit_base_patch16_gap", 64, {"depth": 4}),
    "aimv2": _Model("aimv2_large_patch14_224", 56, {"img_size": 56, "depth": 2}),
}


def cases() -> list[Case]:
    return [_case(family, model) for family, model in FAMILIES.items()]


def _case(family: str, model: _Model) -> Case:
    return Case("timm", model.name, family, lambda: _build(model), images(model.size))


def _build(model: _Model) -> nn.Module:
    import timm

    module: nn.Module = timm.create_model(model.name, pretrained=False, **model.options)
    randomise(module)
    return module
