FIELDS = ("question",)
