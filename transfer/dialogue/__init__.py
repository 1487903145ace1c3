"""Multimodal dialogue in the pipeline of LLaVA-1.5 (LCL paper 4.3, A.2, Tables 4 and 11)."""
