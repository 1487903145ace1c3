"""What a pre-trained vision encoder is asked to do: classification, retrieval and captioning on its frozen features."""
