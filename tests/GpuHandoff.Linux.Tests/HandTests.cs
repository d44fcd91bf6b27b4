using System.Diagnostics;
using GpuHandoff.Kernel;

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
        var process = silent.Process.ShouldNotBeNull("whoever is told that a call hangs is told in which process");
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
        // Eyes that never come back; a file system that hangs in earnest needs a mount.
        File.WriteAllText(_folder["eyes"], "#!/bin/sh\nexec sleep 20\n");
        File.SetUnixFileMode(_folder["eyes"], UnixFileMode.UserRead | UnixFileMode.UserExecute);
        File.WriteAllText(_folder["107.conf"], "dev0: /dev/nvidia0\n");
        var kernel = new LinuxKernel(hand) { Ourselves = _folder["eyes"] };
        Should.Throw<KernelSilent>(() => kernel.ReadSlow(new(_folder["107.conf"]), TimeSpan.FromMilliseconds(300)));
        kernel.Write(new("/dev/null"), "the run goes on", _plenty);
        kernel.ReadSlow(new("/proc/self/comm"), _plenty).ShouldNotBeNull();
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
        var process = silent.Process.ShouldNotBeNull();
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
