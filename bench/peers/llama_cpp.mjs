// llama.cpp's greedy decoding through node-llama-cpp, whose build picks among CPU variants (AVX-512 and bf16 too)
// at run time: new tokens a second, as JSON, one line a measurement.
//
//     npm install node-llama-cpp@3.22.1 --ignore-scripts     (in the folder that NODE_LLAMA_CPP names, or in this one)
//     node llama_cpp.mjs MODEL.gguf [MODEL.gguf ...] [--batch 1,16] [--prompt 32] [--new 128] [--threads 2]
//
// The same measure as llama_cpp.py: every sequence has a prompt of its own, greedy, the end token ignored.

import {existsSync} from "node:fs";
import {createRequire} from "node:module";
import {basename, resolve} from "node:path";
import {performance} from "node:perf_hooks";
import {pathToFileURL} from "node:url";

const options = {batch: "1,16", prompt: "32", new: "128", threads: "2", repeats: "3"};
const models = [];
for (let rest = process.argv.slice(2); rest.length > 0;) {
    const word = rest.shift();
    if (word.startsWith("--") && word.slice(2) in options) options[word.slice(2)] = rest.shift();
    else if (existsSync(word)) models.push(word);
    else { console.error(`no such option or file: ${word}`); process.exit(2); }
}
const [promptTokens, newTokens, threads, repeats] = ["prompt", "new", "threads", "repeats"].map((name) => Number(options[name]));

const home = process.env.NODE_LLAMA_CPP ?? process.cwd();
const entry = createRequire(pathToFileURL(`${resolve(home)}/`)).resolve("node-llama-cpp");
const {getLlama} = await import(pathToFileURL(entry).href);
const llama = await getLlama({gpu: false, build: "never", maxThreads: threads, logLevel: "error"});

function promptOf(sequence) {
    return Array.from({length: promptTokens}, (_, i) => 1000 + (37 * sequence + 11 * i) % 20000);
}

async function complete(sequence, index) {
    await sequence.clearHistory();
    let produced = 0;
    for await (const _ of sequence.evaluate(promptOf(index), {temperature: 0, yieldEogToken: true}))
        if (++produced === newTokens) break;
    if (produced !== newTokens) throw new Error(`stopped after ${produced} tokens`);
}

function median(values) {
    const sorted = [...values].sort((a, b) => a - b);
    const half = sorted.length >> 1;
    return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

for (const path of models) {
    const model = await llama.loadModel({modelPath: path});
    for (const batch of options.batch.split(",").map(Number)) {
        const context = await model.createContext({
            sequences: batch, contextSize: promptTokens + newTokens + 32, batchSize: Math.max(512, batch * promptTokens), threads
        });
        const sequences = Array.from({length: batch}, () => context.getSequence());
        const seconds = [];
        for (let run = 0; run <= repeats; run++) {
            const began = performance.now();
            await Promise.all(sequences.map(complete));
            seconds.push((performance.now() - began) / 1000);
        }
        console.log(JSON.stringify({
            peer: "llama.cpp (node-llama-cpp)", model: basename(path), batch, prompt: promptTokens, new: newTokens, threads,
            tokens_per_s: batch * newTokens / median(seconds.slice(1)),
            peak_bytes_so_far: process.resourceUsage().maxRSS * 1024
        }));
        await context.dispose();
    }
    await model.dispose();
}
process.exit(0);
