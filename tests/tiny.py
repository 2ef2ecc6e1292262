"""Settings that make the paper's networks as small as they can be, and its two stages as short."""

PAPER = {
    "channels": (4, 8),
    "refiner_channels": (4, 8),
    "heads": 2,
    "attention_levels": 1,
    "blocks": 1,
    "feature_layer": "conv1_1",
}
SHORT_PAPER = PAPER | {"patch": (8, 8, 8), "steps": 2, "drafts": 3, "draft_steps": 2}
