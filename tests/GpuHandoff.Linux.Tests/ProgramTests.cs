using System.Diagnostics;
using System.Runtime.InteropServices;
using GpuHandoff.Kernel;
using GpuHandoff.Survey;

namespace GpuHandoff.Linux.Tests;

/// <summary>Real programs and real signals, through the hand and without one.</summary>
public sealed class ProgramTests : IDisposable
{
    const string Shell = "/bin/sh";

    static readonly TimeSpan _plenty = TimeSpan.FromSeconds(20);

    readonly TempFolder _folder = new();
    readonly Hand _hand = Hand.Start(Path.Combine(AppContext.BaseDirectory, "gpu-handoff"));
    readonly LinuxKernel _kernel;

    public ProgramTests() => _kernel = new(_hand);

    public void Dispose()
    {
        _hand.Dispose();
        _folder.Dispose();
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void A_program_brings_its_exit_code_and_all_that_it_said(bool hand)
    {
        var kernel = hand ? _kernel : new LinuxKernel(hand: null);
        kernel.RunProgram(Shell, ["-c", "echo out; echo err >&2; exit 7"], _plenty).ShouldBe(new(7, "out\nerr"));
        kernel.RunProgram(Shell, ["-c", "exit 0"], _plenty).ShouldBe(new(0, ""));
    }

    [Fact]
    public void A_program_knows_nothing_of_us_but_a_path_and_its_language()
    {
        var said = _kernel.RunProgram("/usr/bin/env", [], _plenty).Output.Split('\n');
        said.Order().ShouldBe(["LC_ALL=C", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void A_program_reads_what_it_is_told_to_its_end_and_knows_what_it_is_given(bool hand)
    {
        var kernel = hand ? _kernel : new LinuxKernel(hand: null);
        kernel.RunProgram(Shell, ["-c", "cat; echo $CUDA_MPS_PIPE_DIRECTORY $1", "-", "word"], _plenty, "quit\nnow\n", ["CUDA_MPS_PIPE_DIRECTORY=/run/m ps"])
            .Output.ShouldBe("quit\nnow\n/run/m ps word");
    }

    [Fact]
    public void A_program_that_does_not_read_its_words_is_not_waited_for() =>
        _kernel.RunProgram("/bin/true", [], _plenty, "quit\n").ShouldBe(new(0, ""));

    [Fact]
    public void No_shell_looks_at_what_a_program_is_given() =>
        _kernel.RunProgram("/bin/echo", ["$HOME", "; reboot", "a  b"], _plenty).Output.ShouldBe("$HOME ; reboot a  b");

    [Fact]
    public void A_program_hears_the_signals_that_we_ignore()
    {
        // SigIgn:	0000000180000000          a bit a signal, from 1; 32 and 33 are the C library's own
        var ignored = Convert.ToUInt64(_kernel.RunProgram("/bin/grep", ["SigIgn", "/proc/self/status"], _plenty).Output.Split('\t')[1].Trim(), 16);
        foreach (var signal in (int[])[1, 2, 13, 15])
            (ignored & (1UL << (signal - 1))).ShouldBe(0UL, $"signal {signal}");
    }

    [Fact]
    public void A_program_that_is_not_there_is_told_with_its_path()
    {
        var refused = Should.Throw<KernelRefused>(() => _kernel.RunProgram("/usr/bin/no-such-program", [], _plenty));
        refused.Errno.ShouldBe(Errno.NoEntry);
        refused.Message.ShouldContain("/usr/bin/no-such-program");
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void A_program_that_takes_too_long_is_ended_with_its_children_and_the_next_call_works(bool hand)
    {
        var kernel = hand ? _kernel : new LinuxKernel(hand: null);
        var clock = Stopwatch.StartNew();
        var refused = Should.Throw<ProgramSilent>(() => kernel.RunProgram(
            Shell, ["-c", $"trap '' TERM; sleep 60 & echo $! > {_folder["child"]}; wait"], TimeSpan.FromSeconds(1)));
        refused.Reason.ShouldContain($"ran longer than 1 s and was ended (process {refused.Pid})");
        (refused.Program, refused.IsOver).ShouldBe((Shell, true));
        clock.Elapsed.ShouldBeLessThan(TimeSpan.FromSeconds(10));
        var child = int.Parse(File.ReadAllText(_folder["child"]));
        SpinWait.SpinUntil(() => ProcessStat.Of(child, kernel)?.HasEnded() != false, TimeSpan.FromSeconds(5)).ShouldBeTrue();
        kernel.RunProgram(Shell, ["-c", "echo on"], _plenty).Output.ShouldBe("on");
    }

    // A caller that ignores SIGCHLD (trap '' CHLD, many a daemon) passes that on through exec.
    [Fact]
    public void A_caller_that_ignores_the_ends_of_children_costs_no_exit_code()
    {
        File.WriteAllText(_folder["hand"], $"#!/bin/bash\ntrap '' CHLD\nexec {Path.Combine(AppContext.BaseDirectory, "gpu-handoff")} \"$@\"\n");
        File.SetUnixFileMode(_folder["hand"], UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        using var hand = Hand.Start(_folder["hand"]);
        var kernel = new LinuxKernel(hand);
        kernel.RunProgram(Shell, ["-c", "exit 0"], _plenty).Exit.ShouldBe(0);
        kernel.RunProgram(Shell, ["-c", "exit 7"], _plenty).Exit.ShouldBe(7);
        kernel.RunProgram("/bin/grep", ["SigIgn", "/proc/self/status"], _plenty).Output.ShouldEndWith("0000");
    }

    [Fact]
    public void An_end_that_was_taken_by_another_is_no_success_and_is_not_waited_for()
    {
        foreach (var program in (string[])["/bin/true", "/bin/false"])
        {
            using var process = Spawned.Start(program, [], talks: false, complains: false);
            // As with SIGCHLD ignored: nothing is left to ask for.
            Wait(process.Pid, out _, 0).ShouldBe(process.Pid);
            process.Ended().ShouldBe(Spawned.Unknown);
            process.Ended().ShouldBe(Spawned.Unknown);
        }
        using var other = Spawned.Start("/bin/true", [], talks: false, complains: false);
        Wait(other.Pid, out _, 0).ShouldBe(other.Pid);
        other.Wait().ShouldBe(Spawned.Unknown);
    }

    [DllImport("libc", EntryPoint = "waitpid")]
    static extern int Wait(int pid, out int status, int options);

    [Fact]
    public void Modprobe_that_has_ended_is_not_waited_for_though_a_daemon_of_an_install_line_has_its_output()
    {
        var clock = Stopwatch.StartNew();
        RiskyCalls.Load(Shell, ["-c", $"sleep 30 & echo $! > {_folder["daemon"]}"]).Reason.ShouldBeEmpty();
        RiskyCalls.Load(Shell, ["-c", $"sleep 30 & echo $! > {_folder["other"]}; echo why not; exit 1"]).Reason.ShouldBe("why not");
        clock.Elapsed.ShouldBeLessThan(TimeSpan.FromSeconds(20));
        foreach (var file in (string[])["daemon", "other"])
        {
            using var daemon = Process.GetProcessById(int.Parse(File.ReadAllText(_folder[file])));
            daemon.Kill();
        }
    }

    [Fact]
    public void A_daemon_that_keeps_the_output_open_is_not_waited_for()
    {
        var clock = Stopwatch.StartNew();
        _kernel.RunProgram(Shell, ["-c", $"sleep 30 & echo $! > {_folder["daemon"]}; echo started"], _plenty).Output.ShouldBe("started");
        clock.Elapsed.ShouldBeLessThan(TimeSpan.FromSeconds(10));
        using var daemon = Process.GetProcessById(int.Parse(File.ReadAllText(_folder["daemon"])));
        daemon.Kill();
    }

    [Fact]
    public void A_program_that_says_a_lot_is_heard_to_its_end()
    {
        var (exit, output) = _kernel.RunProgram(Shell, ["-c", "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; exit 3"], _plenty);
        exit.ShouldBe(3);
        output.ShouldStartWith("line 0\nline 1\n");
    }

    [Theory]
    [InlineData(ProcessSignal.Terminate)]
    [InlineData(ProcessSignal.Kill)]
    public void A_process_is_ended_by_its_number_and_its_start(ProcessSignal signal)
    {
        using var process = Process.Start("/bin/sleep", "60");
        var started = ProcessStat.Of(process.Id, _kernel).ShouldNotBeNull().Started;
        _kernel.Signal(process.Id, started, signal);
        process.WaitForExit(10_000).ShouldBeTrue();
        process.ExitCode.ShouldBe(128 + (int)signal);
        // Gone is gone: no error.
        _kernel.Signal(process.Id, started, signal);
    }

    [Fact]
    public void Another_process_with_the_same_number_is_left_alone()
    {
        using var process = Process.Start("/bin/sleep", "60");
        var started = ProcessStat.Of(process.Id, _kernel).ShouldNotBeNull().Started;
        ProcessStat.Lives(process.Id, started, _kernel).ShouldBeTrue();
        ProcessStat.Lives(process.Id, started + 1, _kernel).ShouldBeFalse();
        _kernel.Signal(process.Id, started + 1, ProcessSignal.Kill);
        process.WaitForExit(300).ShouldBeFalse();
        process.Kill();
    }

    [Fact]
    public void Without_a_hand_nobody_is_signalled()
    {
        using var process = Process.Start("/bin/sleep", "60");
        var looking = new LinuxKernel(hand: null);
        var started = ProcessStat.Of(process.Id, looking).ShouldNotBeNull().Started;
        Should.Throw<KernelRefused>(() => looking.Signal(process.Id, started, ProcessSignal.Kill)).Errno.ShouldBe(Errno.ReadOnly);
        process.HasExited.ShouldBeFalse();
        process.Kill();
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(-1)]
    public void Groups_and_the_first_process_are_nobody_to_signal(int pid) =>
        Should.Throw<ArgumentOutOfRangeException>(() => _kernel.Signal(pid, 0, ProcessSignal.Kill));
}
