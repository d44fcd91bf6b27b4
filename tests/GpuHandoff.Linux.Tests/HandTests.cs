using System.Diagnostics;
using GpuHandoff.Kernel;
using GpuHandoff.Survey;

namespace GpuHandoff.Linux.Tests;

/// <summary>The real helper process, on files and pipes: what never returns is a FIFO that nobody reads.</summary>
public sealed class HandTests : IDisposable
{
    static readonly TimeSpan _plenty = TimeSpan.FromSeconds(20);

    readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void A_write_arrives_whole_and_is_made_by_another_process()
    {
        File.WriteAllText(_folder["override"], "");
        using var hand = Start();
        new LinuxKernel(hand).Write(new(_folder["override"]), "vfio-pci\n", _plenty);
        File.ReadAllText(_folder["override"]).ShouldBe("vfio-pci\n");
    }

    [Fact]
    public void A_refusal_brings_its_errno_and_the_path()
    {
        using var hand = Start();
        var refused = Should.Throw<KernelRefused>(() => new LinuxKernel(hand).Write(new(_folder["nosuch"]), "x", _plenty));
        refused.Errno.ShouldBe(Errno.NoEntry);
        refused.Message.ShouldContain(_folder["nosuch"]);
        refused.Message.ShouldContain("ENOENT");
    }

    [Fact]
    public void Many_calls_go_through_one_hand_and_a_refusal_does_not_end_it()
    {
        File.WriteAllText(_folder["file"], "");
        using var hand = Start();
        var kernel = new LinuxKernel(hand);
        for (var i = 0; i < 20; i++)
        {
            Should.Throw<KernelRefused>(() => kernel.Write(new(_folder["nosuch"]), "x", _plenty));
            kernel.Write(new(_folder["file"]), "x", _plenty);
        }
        new FileInfo(_folder["file"]).Length.ShouldBe(1);
    }

    [Fact]
    public void A_call_that_never_returns_is_silent_within_its_budget_and_so_is_every_later_one()
    {
        // Opening a FIFO for writing blocks until somebody reads it: nobody will.
        Process.Start("mkfifo", _folder["fifo"]).WaitForExit();
        var hand = Start();
        var kernel = new LinuxKernel(hand);
        kernel.Write(new("/dev/null"), "up", _plenty);
        var clock = Stopwatch.StartNew();

        var silent = Should.Throw<KernelSilent>(() => kernel.Write(new(_folder["fifo"]), "x", TimeSpan.FromMilliseconds(300)));
        silent.Call.ShouldContain(_folder["fifo"]);
        var process = silent.Process;
        process.Where.ShouldStartWith("state ");
        process.Started.ShouldBeGreaterThan(0ul);
        File.ReadAllText($"/proc/{process.Pid}/cmdline").ShouldContain("--hand");
        Should.Throw<KernelSilent>(() => kernel.Write(new("/dev/null"), "x", _plenty));

        hand.Dispose();
        clock.Elapsed.ShouldBeLessThan(TimeSpan.FromSeconds(10), "neither the call nor letting the hand go may wait for it");
        // Let it go, or it would outlive the tests.
        using var reader = new FileStream(_folder["fifo"], FileMode.Open, FileAccess.Read);
    }

    [Fact]
    public void A_slow_read_that_never_returns_is_silent_and_one_that_does_tells_what_is_there()
    {
        using var hand = Start();
        var kernel = new LinuxKernel(hand) { Ourselves = _tool };
        File.WriteAllText(_folder["override"], "vfio-pci\n");
        kernel.ReadSlow(new(_folder["override"]), _plenty).ShouldBe("vfio-pci");
        kernel.ReadSlow(new(_folder["nosuch"]), _plenty).ShouldBeNull();
        File.WriteAllText(_folder["empty"], "");
        kernel.ReadSlow(new(_folder["empty"]), _plenty).ShouldBe("");
        File.WriteAllBytes(_folder["config"], [0xff, 0x00, 0x0a, 0x80]);
        kernel.ReadBytes(new(_folder["config"]), 3).ShouldBe([0xff, 0x00, 0x0a]);
        kernel.ReadBytes(new(_folder["config"]), 64)!.Length.ShouldBe(4);
        kernel.ReadBytes(new(_folder["nosuch"]), 3).ShouldBeNull();
    }

    [Fact]
    public void A_file_system_of_others_that_hangs_takes_eyes_and_not_the_hand()
    {
        using var hand = Start();
        // Eyes that take the request and never come back; a file system that hangs in earnest needs a mount.
        var eyes = Script("eyes", "printf '\\005\\000\\000\\000taken'; exec sleep 20");
        File.WriteAllText(_folder["107.conf"], "dev0: /dev/nvidia0\n");
        var kernel = new LinuxKernel(hand) { Ourselves = eyes };
        Should.Throw<KernelSilent>(() => kernel.ReadSlow(new(_folder["107.conf"]), TimeSpan.FromMilliseconds(300)));
        kernel.Write(new("/dev/null"), "the run goes on", _plenty);
        kernel.ReadSlow(new("/proc/self/comm"), _plenty).ShouldNotBeNull();
    }

    // ---- a helper that is late is no call that hangs ----

    [Fact]
    public void A_hand_that_is_slow_to_come_up_has_its_calls_time_from_when_it_has_come_up()
    {
        File.WriteAllText(_folder["file"], "");
        using var hand = Hand.Start(Script("slow", $"sleep 5; exec {_tool} \"$@\""));
        hand.Hold(_folder["lock"]);
        new LinuxKernel(hand).Write(new(_folder["file"]), "x", TimeSpan.FromSeconds(3));
        File.ReadAllText(_folder["file"]).ShouldBe("x");
    }

    [Fact]
    public void A_hand_that_does_not_come_up_is_replaced_once_and_the_call_is_made()
    {
        File.WriteAllText(_folder["file"], "");
        using var hand = Hand.Start(
            Script("first", $"mkdir {_folder["was-here"]} 2>/dev/null && exec sleep 60; exec {_tool} \"$@\""), patience: TimeSpan.FromSeconds(3));
        new LinuxKernel(hand).Write(new(_folder["file"]), "x", _plenty);
        File.ReadAllText(_folder["file"]).ShouldBe("x");
    }

    [Fact]
    public void Hands_that_never_come_up_are_told_as_such_and_are_no_silence_of_the_kernel()
    {
        using var hand = Hand.Start(Script("never", "exec sleep 60"), patience: TimeSpan.FromMilliseconds(300));
        for (var i = 0; i < 2; i++)
        {
            var silent = Should.Throw<HelperSilent>(() => new LinuxKernel(hand).Write(new("/dev/null"), "x", _plenty));
            silent.Reason.ShouldContain($"the helper process {silent.Pid} did not come up within 0.3 s");
            ProcessStat.Of(silent.Pid, new LinuxKernel(hand: null))?.HasEnded().ShouldNotBe(false);
        }
    }

    [Fact]
    public void A_hand_that_is_stopped_before_it_takes_a_call_is_replaced_by_one_that_holds_the_same_locks()
    {
        File.WriteAllText(_folder["file"], "");
        using var hand = Hand.Start(_tool, patience: TimeSpan.FromSeconds(5));
        var kernel = new LinuxKernel(hand);
        hand.Hold(_folder["lock"]);
        kernel.Write(new("/dev/null"), "up", _plenty);
        var first = PidOf(hand);
        HoldersOf(_folder["lock"]).ShouldBe([first]);
        Signal("STOP", first);

        kernel.Write(new(_folder["file"]), "x", _plenty);

        File.ReadAllText(_folder["file"]).ShouldBe("x");
        PidOf(hand).ShouldNotBe(first);
        ProcessStat.Of(first, kernel)?.HasEnded().ShouldNotBe(false);
        HoldersOf(_folder["lock"]).ShouldBe([PidOf(hand)]);
    }

    [Fact]
    public void A_hand_that_was_killed_is_replaced_by_one_that_holds_the_same_locks()
    {
        using var hand = Start();
        var kernel = new LinuxKernel(hand);
        hand.Hold(_folder["one"]);
        hand.Hold(_folder["two"]);
        kernel.Write(new("/dev/null"), "up", _plenty);
        var first = PidOf(hand);
        Signal("KILL", first);
        SpinWait.SpinUntil(() => HoldersOf(_folder["one"]) is [], _plenty).ShouldBeTrue();

        kernel.Write(new("/dev/null"), "x", _plenty);

        HoldersOf(_folder["one"]).ShouldBe([PidOf(hand)]);
        HoldersOf(_folder["two"]).ShouldBe([PidOf(hand)]);
        PidOf(hand).ShouldNotBe(first);
    }

    [Fact]
    public void A_hand_without_its_lock_makes_no_call()
    {
        File.WriteAllText(_folder["file"], "");
        using var other = Start();
        other.Hold(_folder["lock"]);
        new LinuxKernel(other).Write(new("/dev/null"), "up", _plenty);
        using var hand = Start();
        hand.Hold(_folder["lock"]);
        for (var i = 0; i < 2; i++)
            Should.Throw<KernelRefused>(() => new LinuxKernel(hand).Write(new(_folder["file"]), "x", _plenty)).Errno.ShouldBe(Errno.TryAgain);
        File.ReadAllText(_folder["file"]).ShouldBeEmpty();
    }

    [Fact]
    public void A_hand_that_is_stopped_in_the_middle_of_a_call_is_ended_and_is_no_silence_of_the_kernel()
    {
        // It takes the request, and is stopped before it makes the call.
        using var hand = Hand.Start(Script("stops", "printf '\\005\\000\\000\\000taken'; kill -STOP $$"));
        var silent = Should.Throw<HelperSilent>(() => new LinuxKernel(hand).Write(new("/dev/null"), "x", TimeSpan.FromMilliseconds(500)));
        silent.Reason.ShouldContain("was stopped by a signal (state T)");
        ProcessStat.Of(silent.Pid, new LinuxKernel(hand: null))?.HasEnded().ShouldNotBe(false);
    }

    [Fact]
    public void A_look_that_is_late_is_waited_for_once_more()
    {
        // It answers after its budget, and before twice that.
        using var hand = Hand.Start(Script("late",
            "printf '\\005\\000\\000\\000taken'; sleep 6; printf '\\006\\000\\000\\0000\\000\\000yes'; exec sleep 20"));
        new LinuxKernel(hand).ReadSlow(new("/proc/driver/nvidia/gpus/0000:01:00.0/information"), TimeSpan.FromSeconds(5)).ShouldBe("yes");
    }

    [Fact]
    public void A_program_whose_helper_does_not_answer_is_no_silence_of_the_kernel()
    {
        using var hand = Hand.Start(Script("mute", "printf '\\005\\000\\000\\000taken'; exec sleep 60"), patience: TimeSpan.FromMilliseconds(300));
        Should.Throw<HelperSilent>(() => new LinuxKernel(hand).RunProgram("/bin/true", [], TimeSpan.FromMilliseconds(100)));
    }

    // ---- a run that is killed leaves nothing in flight ----

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void What_a_hand_has_not_begun_when_its_run_ends_is_never_begun(bool inPeace)
    {
        File.WriteAllText(_folder["file"], "before");
        using var hand = Process.Start(new ProcessStartInfo(_tool, ["--hand"]) { RedirectStandardInput = true, RedirectStandardOutput = true })!;
        var input = hand.StandardInput.BaseStream;
        Say(input, "write", "/dev/null", "up");
        hand.StandardOutput.BaseStream.ReadExactly(new byte[4 + "taken".Length]);

        Signal("STOP", hand.Id);
        SpinWait.SpinUntil(() => ProcessStat.Of(hand.Id, new LinuxKernel(hand: null))!.State == 'T', _plenty).ShouldBeTrue();
        Say(input, "write", _folder["file"], "after");
        Say(input, "hold", _folder["lock"]);
        if (inPeace)
            Say(input, "bye");
        input.Dispose();
        Signal("CONT", hand.Id);

        hand.WaitForExit(20_000).ShouldBeTrue();
        File.ReadAllText(_folder["file"]).ShouldBe("before");
        File.Exists(_folder["lock"]).ShouldBeFalse();
        hand.ExitCode.ShouldBe(inPeace ? 0 : 1, "whether it ended in peace is told by its last word, behind what was dropped");
    }

    static void Say(Stream input, params string[] parts)
    {
        var text = System.Text.Encoding.UTF8.GetBytes(string.Join('\0', parts));
        input.Write([.. BitConverter.GetBytes(text.Length), .. text]);
        input.Flush();
    }

    static int PidOf(Hand hand) => Directory.GetDirectories("/proc").Select(Path.GetFileName)
        .Select(name => int.TryParse(name, out var pid) ? pid : 0).Single(pid => pid > 0 && hand.Is(pid));

    static void Signal(string name, int pid) => Process.Start("/bin/kill", [$"-{name}", $"{pid}"]).WaitForExit();

    static int[] HoldersOf(string path) => [.. HeldLocks.On(new(path), new LinuxKernel(hand: null)).Select(h => h.Pid).Distinct()];

    /// <summary>A program that stands in for the helper.</summary>
    string Script(string name, string text)
    {
        File.WriteAllText(_folder[name], $"#!/bin/bash\n{text}\n");
        File.SetUnixFileMode(_folder[name], UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        return _folder[name];
    }

    [Fact]
    public void A_hand_that_was_killed_is_replaced_by_another()
    {
        File.WriteAllText(_folder["file"], "");
        using var hand = Start();
        var kernel = new LinuxKernel(hand);
        kernel.Write(new(_folder["file"]), "one", _plenty);
        foreach (var process in Process.GetProcessesByName("gpu-handoff").Where(p => hand.Is(p.Id)))
        {
            process.Kill();
            // Its parent, the tests' process, has not asked for its end yet: it stays as a zombie. Its files are closed when the
            // last of its threads has gone, which may be after the first one.
            SpinWait.SpinUntil(
                () => File.ReadAllText($"/proc/{process.Id}/stat").Contains(") Z ") && Directory.GetDirectories($"/proc/{process.Id}/task").Length == 1,
                _plenty).ShouldBeTrue();
        }
        kernel.Write(new(_folder["file"]), "two", _plenty);
        File.ReadAllText(_folder["file"]).ShouldBe("two");
    }

    [Fact]
    public void Without_a_hand_every_change_is_refused()
    {
        var kernel = new LinuxKernel(hand: null);
        Should.Throw<KernelRefused>(() => kernel.Write(new("/dev/null"), "x", _plenty)).Errno.ShouldBe(Errno.ReadOnly);
        Should.Throw<KernelRefused>(() => kernel.LoadModule("nvidia", [], _plenty)).Errno.ShouldBe(Errno.ReadOnly);
        Should.Throw<KernelRefused>(() => kernel.UnloadModule("nvidia", _plenty)).Errno.ShouldBe(Errno.ReadOnly);
    }

    [Fact]
    public void An_unknown_module_is_told_in_modprobes_own_words_or_by_its_absence()
    {
        using var hand = Start();
        var refused = Should.Throw<KernelRefused>(() => new LinuxKernel(hand).LoadModule("no_such_module_anywhere", [], _plenty));
        refused.Message.ShouldContain("no_such_module_anywhere");
        refused.Reason.ShouldContain("modprobe");
    }

    // Proxmox reads a hook's stdout and stderr until nobody has them open any more: a child that stays would keep a start waiting.
    [Fact]
    public void A_hand_that_is_left_behind_has_nothing_of_our_callers_open()
    {
        Process.Start("mkfifo", _folder["fifo"]).WaitForExit();
        // A descriptor that every child would inherit, as those of a task's pipes are.
        using var pipe = new System.IO.Pipes.AnonymousPipeServerStream(System.IO.Pipes.PipeDirection.In, HandleInheritability.Inheritable);
        var hand = Start();
        var silent = Should.Throw<KernelSilent>(() => new LinuxKernel(hand).Write(new(_folder["fifo"]), "x", TimeSpan.FromMilliseconds(300)));
        hand.Dispose();
        var process = silent.Process;
        // pipe:[4711] and socket:[4712] are told by their numbers.
        var ours = Directory.GetFiles("/proc/self/fd").Select(Target).Where(t => t?.Contains(":[") == true).ToHashSet();
        foreach (var file in Directory.GetFiles($"/proc/{process.Pid}/fd"))
            ours.ShouldNotContain(Target(file), file);
        pipe.DisposeLocalCopyOfClientHandle();
        pipe.ReadByte().ShouldBe(-1, "somebody has the pipe's other end open still");
        using var reader = new FileStream(_folder["fifo"], FileMode.Open, FileAccess.Read);

        static string? Target(string file) => new FileInfo(file).LinkTarget;
    }

    static readonly string _tool = Path.Combine(AppContext.BaseDirectory, "gpu-handoff");

    static Hand Start() => Hand.Start(_tool);
}
