"""Runs the official LCL on seeded weights: `python tests/golden/official_lcl.py FOLDER`, a clone of OpenGVLab/LCL.

Writes tests/golden/official_lcl.json: names and shapes of its parameters, features, losses and norms of gradients.
Needs what its open_clip needs, and nothing of this suite but the inputs.
"""

import importlib
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1]))  # both as pytest has them

import torch
from lcl_release import (
    CONTEXT,
    DEPTH,
    EOI,
    EOT,
    FILE,
    IMG,
    PATCH,
    SIDE,
    SOI,
    SOT,
    VOCABULARY,
    WIDTH,
    inputs,
    weights,
)
from torch import Tensor

CONTRAST_WEIGHT = 0.1  # of its training scripts


def main(clone: Path) -> None:
    """Build, fill, run, write."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "open_clip"]:
        del sys.modules[name]  # the released open_clip has no LCL
    sys.path.insert(0, str(clone / "src"))
    lcl_model, loss = importlib.import_module("open_clip.lcl_model"), importlib.import_module("open_clip.loss")
    model = lcl_model.LCL(
        embed_dim=WIDTH,
        vision_cfg={"image_size": SIDE, "layers": DEPTH, "width": WIDTH, "patch_size": PATCH},
        text_cfg={"context_length": CONTEXT, "vocab_size": VOCABULARY, "width": WIDTH, "heads": 2, "layers": DEPTH},
        pool_project_cfg={"input_dim": WIDTH, "output_dim": WIDTH, "attn_num_heads": 2},
        special_token_ids={
            "<start_of_text>": SOT,
            "<end_of_text>": EOT,
            "<img_placehold>": IMG,
            "<start_of_img>": SOI,
            "<end_of_img>": EOI,
        },
    )
    shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
    model.load_state_dict(weights(shapes))
    model.eval()
    given = inputs()
    out = model(given.images, given.ids)
    criterion = loss.LCLLoss(1.0, 1.0, local_loss=True, gather_with_grad=True)
    contrast, generate = criterion(**out)
    (CONTRAST_WEIGHT * contrast + generate).backward()
    found = {
        "source": "OpenGVLab/LCL src/open_clip/lcl_model.py and loss.py, fp32 on CPU",
        "torch": torch.__version__,
        "shapes": shapes,
        "pooled": _rounded(out["image_features"]),
        "context": _rounded(out["text_features"]),
        "contrast": contrast.item(),
        "generate": generate.item(),
        "predicted_tokens": len(out["labels"]),
        "gradient_norms": {
            name: float(f"{float(value.grad.norm()):.7g}")
            for name, value in model.named_parameters()
            if value.grad is not None
        },
    }
    FILE.write_text(json.dumps(found, indent=None, sort_keys=True) + "\n")
    print(f"{FILE}: contrast {found['contrast']:.6f}, generate {found['generate']:.6f}")


def _rounded(features: Tensor) -> list[list[float]]:
    return [[float(f"{value:.7g}") for value in row] for row in features.tolist()]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
