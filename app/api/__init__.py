"""HTTP: routes, documents, problem+json. Everything is decided below; here it gets a shape."""
