// An OpenAI-compatible endpoint for one GGUF file on one core: `POST /v1/chat/completions`, one request at a time.
//
//   npm install --prefix llama node-llama-cpp@3.22.1
//   node benchmarks/interests/endpoint.mjs llama model.gguf 8000
//
// Chats are written in ChatML, as Qwen2.5 was trained; what a prompt shares with the one before it is not read again.

import { createServer } from "node:http";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [prefix, file, port] = process.argv.slice(2);
if (!port) {
  console.error("endpoint.mjs: expected three arguments: npm prefix, GGUF file, port (0: any)");
  process.exit(1);
}
const library = join(prefix, "node_modules", "node-llama-cpp", "dist", "index.js");
const { getLlama } = await import(pathToFileURL(library));
const llama = await getLlama({ gpu: false, maxThreads: 1, build: "never" });
const model = await llama.loadModel({ modelPath: file });
const context = await model.createContext({ contextSize: 2048, threads: 1 });
const sequence = context.getSequence();

/** Answer one chat: {messages, max_tokens, temperature, seed} → a chat completion with its usage. */
async function complete({ messages, max_tokens: most = 256, temperature = 0, seed = 0 }) {
  const turns = messages.map(({ role, content }) => `<|im_start|>${role}\n${content}<|im_end|>\n`);
  const prompt = model.tokenize(`${turns.join("")}<|im_start|>assistant\n`, true);
  // The last token is always read: its answer is what is sampled from.
  await sequence.adaptStateToTokens(prompt.slice(0, -1));
  const written = [];
  // It ends by itself where the model ends its turn.
  for await (const token of sequence.evaluate(prompt.slice(sequence.nextTokenIndex), { temperature, seed })) {
    if (written.push(token) === most) break;
  }
  const reason = written.length === most ? "length" : "stop";
  const message = { role: "assistant", content: model.detokenize(written) };
  const usage = { prompt_tokens: prompt.length, completion_tokens: written.length };
  usage.total_tokens = usage.prompt_tokens + usage.completion_tokens;
  const choices = [{ index: 0, message, finish_reason: reason }];
  return { id: "chat", object: "chat.completion", created: 0, model: file, choices, usage };
}

/** Read a request's body as JSON. */
async function body(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return JSON.parse(Buffer.concat(chunks));
}

let last = Promise.resolve();
const server = createServer(async (request, response) => {
  let status = 200;
  let answer;
  try {
    const asked = await body(request);
    const turn = last.then(() => complete(asked));
    last = turn.catch(() => {});
    answer = await turn;
  } catch (error) {
    [status, answer] = [400, { error: { message: String(error) } }];
  }
  response.writeHead(status, { "Content-Type": "application/json" });
  response.end(JSON.stringify(answer));
});
server.requestTimeout = 0;
server.listen(Number(port), "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}/v1`));
