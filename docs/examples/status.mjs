// What the agent is doing, from Node: a Unix socket, one JSON message a line.
import { connect } from "node:net";
import { createInterface } from "node:readline";
import { homedir } from "node:os";

const path =
  process.env.AUTOTUNED_SOCKET ?? `${homedir()}/.config/macprovider/run/autotuned.sock`;
const socket = connect(path);
socket.on("error", (error) => {
  console.error(`no agent answers at ${path}: ${error.message}`);
  process.exitCode = 9;
});
socket.write(JSON.stringify({ jsonrpc: "2.0", id: 1, method: "status" }) + "\n");
createInterface({ input: socket }).once("line", (line) => {
  const { result, error } = JSON.parse(line);
  if (error) throw new Error(`${error.code}: ${error.message}`);
  const run = result.run;
  console.log(run === null ? "no run yet" : `${run.run_id} ${run.exit_reason ?? run.phase} ${run.model ?? ""}`);
  socket.end();
});
