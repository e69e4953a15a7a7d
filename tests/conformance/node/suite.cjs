// The unmodified openai package of npm, against the server that OPENAI_BASE_URL, OPENAI_API_KEY and OPENAI_ADMIN_KEY name.
// ATTUNE_JOB is a finished job there.
const assert = require("node:assert/strict");
const { createHash } = require("node:crypto");
const { createServer } = require("node:http");
const { default: OpenAI, toFile, NotFoundError, BadRequestError, InvalidWebhookSignatureError } = require("openai");

const client = new OpenAI({ maxRetries: 0 });
// It sends its other key only where OpenAI has the route under `/organization`.
const admin = new OpenAI({ maxRetries: 0, apiKey: process.env.OPENAI_ADMIN_KEY });
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

  async "uploads in parts, at once and in the order of completion"() {
    const content = Buffer.from(`${row}\n`.repeat(4));
    const md5 = createHash("md5").update(content).digest("hex");
    const begun = () =>
      client.uploads.create({ filename: "rows.jsonl", purpose: "fine-tune", bytes: content.length, mime_type: "text/jsonl" });
    const upload = await begun();
    const pieces = [content.subarray(0, 50), content.subarray(50)];
    const parts = await Promise.all(
      pieces.map(async (piece) => client.uploads.parts.create(upload.id, { data: await toFile(piece, "part") })),
    );
    const done = await client.uploads.complete(upload.id, { part_ids: parts.map((part) => part.id), md5 });
    assert.equal(done.status, "completed");
    assert.equal(await (await client.files.content(done.file.id)).text(), content.toString());
    assert.equal((await client.uploads.cancel((await begun()).id)).status, "cancelled");
  },

  async "pause and resume"() {
    const file = await client.files.create({
      file: await toFile(Buffer.from(`${row}\n`.repeat(400)), "rows.jsonl"),
      purpose: "fine-tune",
    });
    const { id } = await client.fineTuning.jobs.create({
      model: "tiny",
      training_file: file.id,
      hyperparameters: { n_epochs: 50, batch_size: 1 },
    });
    assert.equal((await client.fineTuning.jobs.pause(id)).status, "paused");
    const shown = await client.fineTuning.jobs.retrieve(id, { headers: { "attune-compat": "openai" } });
    assert.equal(shown.status, "queued");
    assert.equal((await client.fineTuning.jobs.resume(id)).status, "queued");
    assert.equal((await client.fineTuning.jobs.cancel(id)).status, "cancelled");
  },

  async "a batch"() {
    const body = { model: "tiny", messages: [{ role: "user", content: "hi" }], max_tokens: 2 };
    const line = JSON.stringify({ custom_id: "a", method: "POST", url: "/v1/chat/completions", body });
    const file = await client.files.create({ file: await toFile(Buffer.from(line), "requests.jsonl"), purpose: "batch" });
    const request = { input_file_id: file.id, endpoint: "/v1/chat/completions", completion_window: "24h" };
    let batch = await client.batches.create(request);
    for (let tries = 0; batch.status !== "completed" && tries < 600; tries++) {
      await new Promise((wake) => setTimeout(wake, 200));
      batch = await client.batches.retrieve(batch.id);
    }
    assert.equal(batch.request_counts.completed, 1);
    const answered = JSON.parse(await (await client.files.content(batch.output_file_id)).text());
    assert.equal(answered.custom_id, "a");
    const listed = [];
    for await (const each of client.batches.list({ limit: 1 })) listed.push(each.id);
    assert.ok(listed.includes(batch.id));
    await assert.rejects(client.batches.cancel(batch.id), BadRequestError);
  },

  async "graders"() {
    const grader = {
      type: "string_check",
      name: "same",
      operation: "eq",
      input: "{{sample.output_text}}",
      reference: "{{item.answer}}",
    };
    assert.equal((await client.fineTuning.alpha.graders.validate({ grader })).grader.name, "same");
    const run = await client.fineTuning.alpha.graders.run({ grader, item: { answer: "a" }, model_sample: "a" });
    assert.equal(run.reward, 1);
  },

  async "permissions, and a model that is deleted"() {
    const { fine_tuned_model: model } = await client.fineTuning.jobs.retrieve(process.env.ATTUNE_JOB);
    const checkpoint = `${model}:ckpt-step-5`;
    const project = await client.admin.organization.projects.create({ name: "Node" });
    const { permissions } = admin.fineTuning.checkpoints;
    const made = await permissions.create(checkpoint, { project_ids: [project.id] });
    assert.equal(made.data[0].project_id, project.id);
    const listed = [];
    for await (const each of permissions.list(checkpoint, { limit: 1, order: "ascending" })) listed.push(each.id);
    assert.ok(listed.includes(made.data[0].id));
    const { deleted } = await permissions.delete(made.data[0].id, { fine_tuned_model_checkpoint: checkpoint });
    assert.equal(deleted, true);
    assert.equal((await client.admin.organization.projects.archive(project.id)).status, "archived");
    await assert.rejects(client.models.delete("ft:base/one:acme::abc123"), NotFoundError);
  },

  async "a webhook, whose signature the client verifies"() {
    const received = [];
    const receiver = createServer(async (request, answer) => {
      const pieces = [];
      for await (const piece of request) pieces.push(piece);
      received.push([Buffer.concat(pieces).toString(), request.headers]);
      answer.end();
    });
    await new Promise((ready) => receiver.listen(0, "127.0.0.1", ready));
    const type = "fine_tuning.job.failed";
    // This client has no methods for endpoints.
    const endpoint = await client.post("/webhook_endpoints", {
      body: { name: "node", url: `http://127.0.0.1:${receiver.address().port}/hook`, event_types: [type] },
    });
    await client.post(`/webhook_endpoints/${endpoint.id}/test`, { body: { event_type: type } });
    await client.delete(`/webhook_endpoints/${endpoint.id}`);
    receiver.close();
    const [[body, headers]] = received;
    assert.equal((await client.webhooks.unwrap(body, headers, endpoint.signing_secret)).type, type);
    await assert.rejects(client.webhooks.unwrap(`${body} `, headers, endpoint.signing_secret), InvalidWebhookSignatureError);
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
