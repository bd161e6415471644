-- Sends the requests of a file, and prints what load.parse_wrk reads.
--
-- wrk … -s wrk.lua URL -- <file> <first> <run>
--
-- The file has the length of each request on a line of its own, then the request. `{key}` in a
-- request is replaced by a text that is unique.

local requests, number, run, has_key = {}, 0, "", false

function init(args)
  local file = assert(io.open(args[1], "rb"))
  number, run = tonumber(args[2]) - 1, args[3]  -- wrk takes one request only to check it
  while true do
    local size = file:read("*n")
    if not size then break end
    file:read(1)
    requests[#requests + 1] = file:read(size)
  end
  file:close()
  has_key = requests[1]:find("{key}", 1, true) ~= nil
end

function request()
  local found = requests[number % #requests + 1]
  number = number + 1
  if has_key then
    local at = found:find("{key}", 1, true)
    return found:sub(1, at - 1) .. run .. "-" .. number .. found:sub(at + 5)
  end
  return found
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\nresult: {"responses": %d, "seconds": %.6f, "p50_us": %.0f, "p99_us": %.0f, "errors": '
      .. '{"status": %d, "connect": %d, "read": %d, "write": %d, "timeout": %d}}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect, errors.read, errors.write, errors.timeout))
end
