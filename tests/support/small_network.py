"""Settings of Deep-USPS that are small enough to train a network in a test."""

from dataclasses import replace

from previts.config.perception import FitConfig

SMALL = replace(
    FitConfig(), network="drn_d_22", width=0.125, inputs="contrast", size=32, rounds=1, round_epochs=3,
    fusion_epochs=4, batch_size=8, round_lr=(3e-3,) * 3, fusion_lr=3e-3, history_crf="last",
    flip_probability=0.5, recolour_probability=0.5,
)  # fmt: skip
