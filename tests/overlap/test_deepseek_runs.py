"""The claims of the scripts that reproduce published runs of DeepSeek-V3 with two-batch overlap."""

import pytest

from benchmarks.reproductions import b11_deepseek_prefill, c4_two_batch_overlap


def test_two_batch_overlap_loses_on_few_tokens_and_gains_on_many():
    """C4: the sign of every published row, and the break-even where it was found."""
    gains = {tokens: c4_two_batch_overlap.decode(tokens).gain for tokens in c4_two_batch_overlap.PUBLISHED}
    assert gains[32] == pytest.approx(-0.27, abs=0.10)
    assert gains[64] < 0 < gains[128] < gains[256]


def test_longer_prompts_prefill_slower_and_overlap_helps():
    """B11: every row within an eighth; the overlapped step keeps its bounds."""
    rates = []
    for prompt_tokens, published in b11_deepseek_prefill.PUBLISHED.items():
        serial, overlapped = b11_deepseek_prefill.prefill(prompt_tokens)
        assert overlapped.lower_s <= overlapped.seconds < overlapped.serial_s < serial.seconds
        rates.append(b11_deepseek_prefill.tokens_per_s(serial, overlapped))
        assert rates[-1] == pytest.approx(published, rel=0.125)
    assert rates == sorted(rates, reverse=True)
