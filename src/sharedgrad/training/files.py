"""The files of a run folder."""

MODEL, CONFIG, RUN = "model.safetensors", "model.json", "run.json"
METRICS, CHECKPOINT = "metrics.csv", "checkpoint.safetensors"
CURVES, CONFUSION, KERNELS = "curves.png", "confusion.png", "kernels.png"
FILES = (MODEL, CONFIG, RUN, METRICS, CURVES, CONFUSION, KERNELS, CHECKPOINT)
