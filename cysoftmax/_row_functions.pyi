__pyx_capi__: dict[str, object]
TABLE: object

def address_in(capsule: object) -> int: ...
