// The `ai` SDK over its OpenAI-compatible provider; "responses" over its OpenAI provider.

import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, embedMany, generateText, jsonSchema, Output, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";
import { cell, check, EMBEDDER, MODEL, raises, tell, URL_ } from "./cells.mjs";

globalThis.AI_SDK_LOG_WARNINGS = false;
const baseURL = `${URL_}/v1`;
const provider = createOpenAICompatible({
  name: "baton",
  baseURL,
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const official = createOpenAI({ baseURL, apiKey: "none" });
const model = provider.chatModel(MODEL);
const asked = { model, temperature: 0, maxOutputTokens: 12, maxRetries: 0, prompt: "Say hello." };
const schema = z.object({ name: z.string().max(12), age: z.number().int() });
const weather = tool({
  description: "the weather of a city",
  inputSchema: z.object({ city: z.enum(["Bonn", "Köln"]) }),
  execute: async ({ city }) => `rain in ${city}`,
});

cell("chat", async () => {
  const { text, finishReason } = await generateText({ ...asked, system: "Be brief." });
  check(text && ["stop", "length"].includes(finishReason), "there is an answer");
});

cell("stream", async () => {
  const whole = await generateText(asked);
  const stream = streamText(asked);
  let text = "";
  for await (const part of stream.textStream) text += part;
  check(text === whole.text, "a stream is the whole answer");
});

cell("usage", async () => {
  const whole = await generateText(asked);
  const usage = await streamText(asked).usage;
  check(usage.inputTokens > 0 && usage.inputTokens === whole.usage.inputTokens, "input is counted");
  check(usage.outputTokens === whole.usage.outputTokens, "output is counted");
});

cell("tools", async () => {
  const { steps } = await generateText({
    ...asked,
    maxOutputTokens: 40,
    tools: { weather },
    prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber ? "auto" : "required" }),
    stopWhen: stepCountIs(2),
  });
  check(steps.length === 2 && steps[0].toolResults[0].output.startsWith("rain"), "two steps");
});

cell("tools streamed", async () => {
  const stream = streamText({
    ...asked,
    maxOutputTokens: 40,
    tools: { weather },
    toolChoice: { type: "tool", toolName: "weather" },
  });
  const kinds = new Set();
  for await (const part of stream.fullStream) {
    if (part.type === "error") throw part.error;
    kinds.add(part.type);
  }
  check(kinds.has("tool-call") && kinds.has("tool-result"), "the tool is called");
});

cell("structured", async () => {
  const { output } = await generateText({
    ...asked,
    maxOutputTokens: 60,
    output: Output.object({ schema }),
  });
  schema.parse(output);
});

cell("structured streamed", async () => {
  const stream = streamText({ ...asked, maxOutputTokens: 60, output: Output.object({ schema }) });
  let last;
  for await (const part of stream.partialOutputStream) last = part;
  schema.parse(last);
});

cell("logprobs", async () => {
  const options = { openai: { logprobs: 3 } };
  const told = await generateText({ ...asked, model: official.chat(MODEL), providerOptions: options });
  check(told.providerMetadata.openai.logprobs.length > 0, "they are told");
});

cell("embeddings", async () => {
  const told = await embedMany({ model: provider.embeddingModel(EMBEDDER), values: ["a", "b"], maxRetries: 0 });
  check(told.embeddings[1].length === 384 && told.usage.tokens > 0, "vectors are there");
});

cell("responses", async () => {
  const responses = { ...asked, maxOutputTokens: 60, model: official.responses(MODEL) };
  const whole = await generateText(responses);
  check(whole.text, "there is an answer");
  let text = "";
  for await (const part of streamText(responses).textStream) text += part;
  check(text === whole.text, "a stream is the whole answer");
  const { output } = await generateText({ ...responses, output: Output.object({ schema }) });
  schema.parse(output);
  const { steps } = await generateText({
    ...responses,
    tools: { weather },
    prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber ? "auto" : "required" }),
    stopWhen: stepCountIs(2),
  });
  check(steps.length === 2, "two steps");
});

cell("errors", async () => {
  const error = await raises(APICallError, () =>
    generateText({ ...asked, model: provider.chatModel("none-such") }),
  );
  check(error.statusCode === 404, "it is not found");
  const wrong = await raises(APICallError, () =>
    generateText({ ...asked, providerOptions: { baton: { temperture: 1 } } }),
  );
  check(wrong.statusCode === 400 && wrong.message.includes("temperture"), "the field is named");
});

await tell("ai", "@ai-sdk/openai", "@ai-sdk/openai-compatible", "zod");
