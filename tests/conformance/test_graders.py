"""Graders through the unmodified OpenAI client."""

import openai
import pytest


def test_graders_run_through_the_client(client):
    grader = {
        "type": "multi",
        "name": "both",
        "graders": {
            "same": {
                "type": "string_check", "name": "same", "operation": "eq",
                "input": "{{sample.output_text}}", "reference": "{{item.answer}}",
            },
            "near": {
                "type": "text_similarity", "name": "near", "evaluation_metric": "rouge_l",
                "input": "{{sample.output_text}}", "reference": "{{item.answer}}",
            },
        },
        "calculate_output": "0.5 * same + 0.5 * near",
    }
    graders = client.fine_tuning.alpha.graders
    assert graders.validate(grader=grader).grader.name == "both"
    run = graders.run(grader=grader, item={"answer": "a b c d"}, model_sample="a b c")
    assert run.reward == pytest.approx(3 / 7) and run.metadata.errors.other_error is False
    with pytest.raises(openai.BadRequestError):
        graders.validate(grader={"type": "python", "name": "p", "source": "x"})
