"""Vision encoders from elsewhere as towers: open_clip, timm, Hugging Face CLIP and SigLIP, the released LCL."""
