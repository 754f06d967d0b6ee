def render() -> str:
    return "quay"
