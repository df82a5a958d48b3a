"""The embedded model, made where no weights can be downloaded: its tokenizer, its optimizer, its training.

The model is called `tiny` in configurations, its source `embedded`; the study on it is the demo.
May import `study`, `tasks`, `inputs` and `policy`.
"""
