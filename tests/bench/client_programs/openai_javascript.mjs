// OpenAI's client for JavaScript, with zod's schemas.

import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";
import { cell, check, EMBEDDER, MODEL, raises, tell, URL_, WEATHER } from "./cells.mjs";

const client = new OpenAI({ baseURL: `${URL_}/v1`, apiKey: "none", maxRetries: 0, timeout: 300e3 });
const messages = [{ role: "user", content: "Say hello." }];
const asked = { model: MODEL, temperature: 0, max_tokens: 12, messages };
const tools = [{ type: "function", function: { name: "weather", parameters: WEATHER } }];
const Person = z.object({ name: z.string().max(12), age: z.number().int(), mood: z.enum(["good", "bad"]).nullable() });

cell("models", async () => {
  const found = [];
  for await (const row of client.models.list()) found.push(row.id);
  check(found.includes(MODEL) && found.includes(EMBEDDER), "both models are listed");
});

cell("chat", async () => {
  const told = await client.chat.completions.create({
    ...asked,
    messages: [{ role: "developer", content: "Be brief." }, ...messages],
  });
  check(told.choices[0].message.content, "there is an answer");
});

cell("stream", async () => {
  const whole = await client.chat.completions.create(asked);
  let text = "";
  for await (const chunk of await client.chat.completions.create({ ...asked, stream: true }))
    text += chunk.choices[0]?.delta?.content ?? "";
  check(text === whole.choices[0].message.content, "a stream is the whole answer");
});

cell("usage", async () => {
  const whole = await client.chat.completions.create(asked);
  let last;
  const options = { stream: true, stream_options: { include_usage: true } };
  for await (const chunk of await client.chat.completions.create({ ...asked, ...options })) last = chunk;
  check(last.usage.total_tokens === whole.usage.total_tokens, "usage is the same");
});

cell("tools", async () => {
  const options = { ...asked, max_tokens: 40, tools };
  const told = await client.chat.completions.create({ ...options, tool_choice: "required" });
  const said = told.choices[0].message;
  check(JSON.parse(said.tool_calls[0].function.arguments).city, "a city is given");
  const result = { role: "tool", tool_call_id: said.tool_calls[0].id, content: "rain" };
  const after = await client.chat.completions.create({ ...options, messages: [...messages, said, result] });
  check(after.usage.prompt_tokens > told.usage.prompt_tokens, "the result is in the prompt");
});

cell("tools streamed", async () => {
  const runner = client.chat.completions.stream({ ...asked, max_tokens: 40, tools, tool_choice: "required" });
  const final = await runner.finalChatCompletion();
  check(JSON.parse(final.choices[0].message.tool_calls[0].function.arguments).city, "a city is given");
});

cell("structured", async () => {
  const told = await client.chat.completions.parse({
    ...asked,
    max_tokens: 60,
    response_format: zodResponseFormat(Person, "person"),
  });
  Person.parse(told.choices[0].message.parsed);
});

cell("structured streamed", async () => {
  const runner = client.chat.completions.stream({
    ...asked,
    max_tokens: 60,
    response_format: zodResponseFormat(Person, "person"),
  });
  Person.parse((await runner.finalChatCompletion()).choices[0].message.parsed);
});

cell("logprobs", async () => {
  const told = await client.chat.completions.create({ ...asked, logprobs: true, top_logprobs: 5 });
  check(told.choices[0].logprobs.content.every((it) => it.top_logprobs.length === 5), "five each");
});

cell("embeddings", async () => {
  const told = await client.embeddings.create({ model: EMBEDDER, input: ["a cat", "a dog"] });
  check(told.data[1].embedding.length === 384 && told.usage.prompt_tokens > 0, "vectors are there");
});

cell("responses", async () => {
  const options = { model: MODEL, temperature: 0, max_output_tokens: 60, input: "Somebody?" };
  const told = await client.responses.parse({ ...options, text: { format: zodTextFormat(Person, "person") } });
  Person.parse(told.output_parsed);
  const runner = client.responses.stream({ ...options, previous_response_id: told.id });
  const final = await runner.finalResponse();
  check(final.output_text, "there is an answer");
  check((await client.responses.retrieve(told.id)).id === told.id, "it is kept");
});

cell("errors", async () => {
  const missing = await raises(OpenAI.NotFoundError, () =>
    client.chat.completions.create({ ...asked, model: "none-such" }),
  );
  check(missing.code === "model_not_found", "it has its code");
  const wrong = await raises(OpenAI.BadRequestError, () =>
    client.chat.completions.create({ ...asked, temperture: 1 }),
  );
  check(wrong.param === "temperture", "the field is named");
});

await tell("openai", "zod");
