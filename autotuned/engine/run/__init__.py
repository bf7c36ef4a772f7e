"""One run, from the request to its document: admitted, driven, recorded, resumed."""
