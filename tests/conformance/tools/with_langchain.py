"""LangChain's `ChatOpenAI` on a tuned model: whole, streamed, asynchronous, several at once, and the log-probabilities."""

import asyncio
import json
import os
import sys

from langchain_openai import ChatOpenAI

model = ChatOpenAI(model=sys.argv[1], temperature=0, max_tokens=8, seed=1, max_retries=0)
QUESTION = "is 11 odd?"

whole = model.invoke(QUESTION)
assert whole.usage_metadata["output_tokens"] > 0 and whole.response_metadata["model_name"] == sys.argv[1]
assert "".join(chunk.text for chunk in model.stream(QUESTION)) == whole.text
assert asyncio.run(model.ainvoke(QUESTION)).text == whole.text
assert [each.text for each in model.batch([QUESTION, QUESTION])] == [whole.text] * 2
tokens = model.bind(logprobs=True, top_logprobs=2).invoke(QUESTION).response_metadata["logprobs"]["content"]
assert len(tokens) == whole.usage_metadata["output_tokens"] and all(len(token["top_logprobs"]) == 2 for token in tokens)
print(json.dumps({"text": whole.text, "url": os.environ["OPENAI_BASE_URL"]}))
