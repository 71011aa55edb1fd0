"""Files as accidents and people change them: bytes flipped, cut, repeated, moved, and replaced by what is special."""

#: What readers of numbers and of YAML stumble over.
SPECIAL = [
    *("nan", "inf", "-1e308", "1e999", "1e-320", "99999999999999999999", "1_000", "0x1F", "1,5", "1.234.567", "1 000"),
    *(
        ",",
        ";",
        "\t",
        "|",
        " ",
        '"',
        "'",
        "\n",
        "\r",
        "\0",
        "\x1a",
        "#",
        "#N/A",
        "%",
        "\\",
        "\ufeff",
        "é",
        "\u0663",
        "-",
    ),
    *("e", ".", ": ", "- ", "? ", "{", "}", "[", "]", "&a ", "*a", "<<: *a", "!!binary ", "!x ", "|\n", ">\n", "---\n"),
    *("...\n", "~", "null", "true", "010", "1:30", "2020-01-01", "../", "/", "$HOME", "a,b,c\n", "1,2,3\n", ",,,\n"),
    *("[" * 400, "9" * 400),
]


def mutated(rng, data, others):
    """A copy of some bytes with some changes, one or two as a rule.

    Parameters
    ----------
    rng
        Random generator.
    data
        Bytes, at least one.
    others
        Further files, pieces of which are put in.
    """
    data = bytearray(data)
    for _ in range(rng.geometric(0.6)):
        start, stop = sorted(rng.integers(0, len(data) + 1, 2).tolist())
        stop = min(stop, start + int(10 ** rng.uniform(-1, 2)))
        special = SPECIAL[rng.integers(len(SPECIAL))].encode()
        other = others[rng.integers(len(others))]
        place = rng.integers(0, len(other))
        data[start:stop] = [
            bytes(byte ^ (1 << rng.integers(8)) for byte in data[start : min(stop, start + 3)])
            + data[start + 3 : stop],
            b"",
            data[start:stop] * int(rng.integers(2, 50)),
            special,
            special + data[start:stop],
            rng.bytes(int(rng.integers(1, 9))),
            bytes(other[place : place + 200]),
            bytes(stop - start),
        ][rng.integers(8)]
        if rng.random() < 0.05:
            del data[start:]
        data = data or bytearray(special)
    return bytes(data)


def outcome(call, refusal):
    """What a call returns, and None; or None, and the message with which it refuses, which must be one line."""
    try:
        return call(), None
    except refusal as error:
        message = str(error)
    assert message, "a refusal says why"
    assert "\n" not in message, message
    assert len(message) < 1000, message
    return None, message
