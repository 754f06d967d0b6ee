"""Nested functions, a comprehension, a generator: nested code objects."""

LENGTHS = [length for length in range(20, 120, 20)]


def render() -> str:
    def longest():
        yield from sorted(LENGTHS, reverse=True)

    return str(next(longest()))
