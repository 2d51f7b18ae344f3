"""Settings with which a detector is trained and tested in seconds."""

from previts.config.evaluation import DetectionConfig, EvaluationConfig

SMALL = EvaluationConfig(
    detection=DetectionConfig(
        lr=0.005,
        batch_size=2,
        voc_steps=6,
        coco_steps=3,
        voc_sides=(64, 96),
        coco_sides=(64, 96),
        proposals=8,
        regions=8,
        cells=4,
        precise_bn=2,
    ),
    limit=6,
)
