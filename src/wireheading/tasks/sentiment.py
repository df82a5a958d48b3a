FIELDS = ("text",)
