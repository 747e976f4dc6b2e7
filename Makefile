.PHONY: check unit test docs

check: ## ruff, mypy, import-linter
	ruff check .
	ruff format --check .
	mypy
	lint-imports

unit: ## quick tests of the pure parts
	pytest tests/algorithms tests/rewards tests/studies tests/tasks tests/docs tests/test_config.py tests/test_health.py

test: ## all tests, also the slow ones
	pytest -m ''

docs: ## the generated pages, then the site in build/site
	python -m tests.docs.reference
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict
