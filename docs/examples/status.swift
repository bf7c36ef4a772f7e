// What the agent is doing, from Swift: a Unix socket, one JSON message a line. Run: swift status.swift
import Foundation

let path = ProcessInfo.processInfo.environment["AUTOTUNED_SOCKET"]
    ?? NSHomeDirectory() + "/.config/macprovider/run/autotuned.sock"
let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM), 0)
var address = sockaddr_un()
address.sun_family = sa_family_t(AF_UNIX)
precondition(path.utf8.count < MemoryLayout.size(ofValue: address.sun_path), "the path is too long: \(path)")
withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
let connected = withUnsafePointer(to: &address) {
    $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
    }
}
guard connected == 0 else {
    FileHandle.standardError.write("no agent answers at \(path)\n".data(using: .utf8)!)
    exit(9)
}
let agent = FileHandle(fileDescriptor: descriptor, closeOnDealloc: true)
agent.write(#"{"jsonrpc":"2.0","id":1,"method":"status"}"#.data(using: .utf8)! + Data([10]))
var line = Data()
while !line.contains(10) {
    let part = agent.availableData
    if part.isEmpty { break }
    line.append(part)
}
let answer = try JSONSerialization.jsonObject(with: line) as? [String: Any]
let run = (answer?["result"] as? [String: Any])?["run"] as? [String: Any]
print(run?["run_id"] ?? "no run yet", run?["exit_reason"] ?? run?["phase"] ?? "")
