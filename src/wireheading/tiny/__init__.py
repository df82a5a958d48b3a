"""The embedded model, made where no weights can be downloaded: its corpus, its tokenizer and its pre-training."""
