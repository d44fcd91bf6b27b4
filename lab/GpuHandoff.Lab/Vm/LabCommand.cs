using System.Diagnostics;
using System.Globalization;
using System.Text;
using System.Text.Json.Nodes;

namespace GpuHandoff.Lab.Vm;

/// <summary>A command that runs in the guest.</summary>
public sealed class LabCommand
{
    // Stands before the guest's two clock readings, at the end of what the command wrote to stderr.
    const char Mark = '\u001e';

    // The command gets a shell of its own by a fork, so that its `exit` does not end this one, and by job control a process group
    // of its own, so that all of it can be killed at once: setsid would be one more program to come up.
    const string Timed = """
        set -m; s=$EPOCHREALTIME; (set +m; eval "$0"); c=$?; e=$EPOCHREALTIME; printf '\036%s %s' "$s" "$e" >&2; exit $c
        """;

    static readonly TimeSpan FirstPause = TimeSpan.FromMilliseconds(15);
    static readonly TimeSpan LongestPause = TimeSpan.FromMilliseconds(150);

    readonly Agent agent;
    readonly Stopwatch clock = Stopwatch.StartNew();
    LabResult? result;

    internal LabCommand(Agent agent, string command)
    {
        this.agent = agent;
        Command = command;
        var started = agent.Ask("guest-exec", new()
        {
            ["path"] = "/bin/bash",
            ["arg"] = new JsonArray("-c", Timed, command),
            ["capture-output"] = true,
        });
        ProcessId = started!["pid"]!.GetValue<long>();
    }

    public string Command { get; }

    /// <summary>The shell's process in the guest, whose only child leads the command's process group.</summary>
    public long ProcessId { get; }

    /// <summary>Whether it ended, and all that holds its output as well: a daemon it leaves behind must redirect its own.</summary>
    public bool HasEnded => result is not null || Look() is not null;

    /// <summary>Waits for its end.</summary>
    /// <exception cref="LabCommandSilent">It has not ended in that time. It still runs.</exception>
    public LabResult Wait(TimeSpan limit)
    {
        var until = clock.Elapsed + limit;
        var pause = FirstPause;
        while (true)
        {
            if (Look() is { } ended)
                return ended;
            if (clock.Elapsed >= until)
                throw new LabCommandSilent(Command, limit);
            Thread.Sleep(pause);
            // Each question costs the emulated machine time of its own: ask a long command less often.
            pause = pause * 1.25 < LongestPause ? pause * 1.25 : LongestPause;
        }
    }

    /// <summary>Kills the command and its children, as far as they can be killed: one that hangs in the kernel cannot.</summary>
    public void Kill() => new LabCommand(agent, $"for p in $(pgrep -P {ProcessId}); do kill -KILL -- -$p; done; kill -KILL {ProcessId}").Wait(TimeSpan.FromSeconds(30));

    LabResult? Look()
    {
        if (result is not null)
            return result;
        var status = agent.Ask("guest-exec-status", new() { ["pid"] = ProcessId })!;
        if (!status["exited"]!.GetValue<bool>())
            return null;

        if (status["out-truncated"]?.GetValue<bool>() == true || status["err-truncated"]?.GetValue<bool>() == true)
            throw new LabVmLost($"the output of `{Command}` is over the agent's 16 MiB: redirect it to a file and collect that");

        var roundTrip = clock.Elapsed;
        var (errors, took) = SplitTime(Text(status["err-data"]));
        var code = status["signal"] is { } signal ? 128 + signal.GetValue<int>() : status["exitcode"]?.GetValue<int>() ?? -1;
        return result = new(Command, code, Text(status["out-data"]), errors, took ?? roundTrip, roundTrip);
    }

    static string Text(JsonNode? base64) =>
        base64 is null ? "" : Encoding.UTF8.GetString(Convert.FromBase64String(base64.GetValue<string>()));

    static (string Errors, TimeSpan? Took) SplitTime(string errors)
    {
        var mark = errors.LastIndexOf(Mark);
        if (mark < 0)
            return (errors, null);
        return errors[(mark + 1)..].Split(' ') is [var start, var end]
            ? (errors[..mark], TimeSpan.FromMicroseconds((long)(1e6m * (Seconds(end) - Seconds(start)))))
            : (errors[..mark], null);

        static decimal Seconds(string text) => decimal.Parse(text, CultureInfo.InvariantCulture);
    }
}
