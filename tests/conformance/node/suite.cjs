// The unmodified openai package of npm, against the server that OPENAI_BASE_URL and OPENAI_API_KEY name.
// ATTUNE_JOB is a finished job there.
const assert = require("node:assert/strict");
const { default: OpenAI, toFile, NotFoundError, BadRequestError } = require("openai");

const client = new OpenAI({ maxRetries: 0 });
const row = JSON.stringify({
  messages: [
    { role: "user", content: "a" },
    { role: "assistant", content: "b" },
  ],
});
const upload = async () =>
  client.files.create({ file: await toFile(Buffer.from(row), "rows.jsonl"), purpose: "fine-tune" });

const tests = {
  async "files, whose form names the file first"() {
    const file = await upload();
    assert.equal((await client.files.waitForProcessing(file.id)).status, "processed");
    assert.equal(await (await client.files.content(file.id)).text(), row);
    const listed = [];
    for await (const each of client.files.list({ limit: 2 })) listed.push(each.id);
    assert.ok(listed.includes(file.id));
    assert.equal((await client.files.delete(file.id)).deleted, true);
    await assert.rejects(client.files.retrieve(file.id), NotFoundError);
  },

  async "a file that expires"() {
    const file = await client.files.create({
      file: await toFile(Buffer.from(row), "rows.jsonl"),
      purpose: "fine-tune",
      expires_after: { anchor: "created_at", seconds: 3600 },
    });
    assert.equal(file.expires_at, file.created_at + 3600);
  },

  async "jobs: create, retrieve, list by metadata, cancel"() {
    const file = await upload();
    const job = await client.fineTuning.jobs.create({
      model: "tiny",
      training_file: file.id,
      metadata: { team: "a b" },
      method: { type: "supervised", supervised: { hyperparameters: { n_epochs: 50 } } },
      attune: { lora: { rank: 4 } },
    });
    assert.equal(job.attune.config.lora.rank, 4);
    assert.equal((await client.fineTuning.jobs.retrieve(job.id)).id, job.id);
    const found = await client.fineTuning.jobs.list({ metadata: { team: "a b" }, limit: 1 });
    assert.deepEqual(found.data.map((each) => each.id), [job.id]);
    const cancelled = await client.fineTuning.jobs.cancel(job.id).catch((error) => error);
    assert.ok(cancelled.status === "cancelled" || cancelled instanceof BadRequestError, String(cancelled));
  },

  async "events and checkpoints of a finished job, page after page"() {
    const job = await client.fineTuning.jobs.retrieve(process.env.ATTUNE_JOB);
    assert.equal(job.status, "succeeded");
    const events = [];
    for await (const event of client.fineTuning.jobs.listEvents(job.id, { limit: 3 })) events.push(event);
    assert.ok(events.length > 3);
    assert.equal(new Set(events.map((event) => event.id)).size, events.length);
    const checkpoints = [];
    for await (const each of client.fineTuning.jobs.checkpoints.list(job.id, { limit: 1 })) checkpoints.push(each);
    assert.ok(checkpoints.every((each) => each.metrics.step === each.step_number));
    const csv = await (await client.files.content(job.result_files[0])).text();
    assert.ok(csv.startsWith("step,train_loss"));
  },

  async "models, by names that the client percent-encodes"() {
    const job = await client.fineTuning.jobs.retrieve(process.env.ATTUNE_JOB);
    assert.equal((await client.models.retrieve(job.fine_tuned_model)).id, job.fine_tuned_model);
    await assert.rejects(client.models.retrieve("ft:base/one:acme::abc123"), NotFoundError);
    const names = (await client.models.list()).data.map((model) => model.id);
    assert.ok(names.includes("tiny"));
  },

  async "chat, whole and as a stream"() {
    const request = { model: "tiny", messages: [{ role: "user", content: "hi" }], max_tokens: 4, seed: 1 };
    const whole = await client.chat.completions.create(request);
    let text = "";
    for await (const chunk of await client.chat.completions.create({ ...request, stream: true })) {
      text += chunk.choices[0]?.delta?.content ?? "";
    }
    assert.equal(text, whole.choices[0].message.content);
  },

  async "an error names its field"() {
    const refused = await client.fineTuning.jobs
      .create({ model: "tiny", training_file: "file-1", hyperparameters: { n_epochs: 51 } })
      .catch((error) => error);
    assert.ok(refused instanceof BadRequestError);
    assert.equal(refused.param, "hyperparameters.n_epochs");
    assert.ok(refused.requestID.startsWith("req_"));
  },
};

(async () => {
  for (const [name, test] of Object.entries(tests)) {
    try {
      await test();
      console.log(`ok: ${name}`);
    } catch (error) {
      console.error(`failed: ${name}`, error);
      process.exitCode = 1;
    }
  }
})();
