"""What every objective shares: vision encoder, language model, heads; imports none of ours but data.seeds."""
