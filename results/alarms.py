"""What is watched of an encoder in training, and declared alarms: features collapsed, images not used.

Thresholds of collapse are those of RankMe and of the std ratio in the usual diagnostics; that of use is our choice. An
alarm is a warning and ends no run: a method that collapses is a result.
"""

from collections.abc import Mapping

from results.schema import RunRecord

# Metrics of a pre-training record that are printed and drawn, with their headings.
DIAGNOSTICS = {
    "probe_feature_std_ratio": "std ratio",
    "probe_mean_cosine": "mean cosine",
    "probe_rankme": "effective rank",
    "probe_con_acc": "contrastive accuracy",
    "probe_text_nll": "text loss",
    "probe_visual_use_shuffled": "use of images, others",
    "probe_visual_use_zeroed": "use of images, black",
}

LEAST_STD_RATIO = 0.1
LEAST_RANK_SHARE = 0.05  # of the effective rank the features could have
LEAST_USE = 0.01  # of the text loss, that images of other documents cost


def collapsed(probe: Mapping[str, float], largest: int) -> bool:
    """Whether a probe's features are near one point; False where it has none. largest: effective rank they could have,
    the width of the encoder or the number of images."""
    if "probe_rankme" not in probe:
        return False
    return probe["probe_feature_std_ratio"] < LEAST_STD_RATIO or probe["probe_rankme"] < LEAST_RANK_SHARE * largest


def crossed(probe: Mapping[str, float], largest: int) -> list[str]:
    """Alarms that a probe's values set off, in words."""
    found = []
    if collapsed(probe, largest):
        ratio, rank = probe["probe_feature_std_ratio"], probe["probe_rankme"]
        found.append(f"collapsed (std ratio {ratio:.3f}, rank {rank:.1f} of {largest})")
    use, loss = probe.get("probe_visual_use_shuffled"), probe.get("probe_text_nll")
    if use is not None and loss is not None and use < LEAST_USE * loss:
        found.append(f"images hardly used ({use:.4f} nats of a text loss of {loss:.3f})")
    return found


def of_record(record: RunRecord) -> list[str]:
    """Alarms at the end of a pre-training."""
    width = record.spec.get("model", {}).get("vision", {}).get("width")
    return crossed(record.metrics, width) if isinstance(width, int) else []
