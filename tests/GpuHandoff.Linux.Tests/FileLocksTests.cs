using System.Globalization;
using System.Runtime.InteropServices;
using GpuHandoff.Runs;
using Microsoft.Win32.SafeHandles;

namespace GpuHandoff.Linux.Tests;

public sealed class FileLocksTests : IDisposable
{
    readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void A_lock_is_had_by_one_at_a_time_and_its_holder_can_be_named()
    {
        var (one, other) = (Locks(), Locks());
        using (one.Try("gpu-0000:01:00.0", shared: false).ShouldNotBeNull())
        {
            other.Try("gpu-0000:01:00.0", shared: false).ShouldBeNull();
            other.Try("gpu-0000:01:00.0", shared: true).ShouldBeNull();
            other.Holder("gpu-0000:01:00.0").ShouldStartWith($"{Environment.ProcessId} ");
            using var another = other.Try("gpu-0000:02:00.0", shared: false).ShouldNotBeNull("another card is another lock");
        }
        using var then = other.Try("gpu-0000:01:00.0", shared: false).ShouldNotBeNull();
    }

    [Fact]
    public void A_lock_is_free_at_once_though_a_child_that_is_just_being_started_still_has_the_file()
    {
        var held = Locks().Try("modules", shared: false).ShouldNotBeNull();
        var file = Directory.EnumerateFiles("/proc/self/fd").Single(it => File.ResolveLinkTarget(it, returnFinalTarget: false)?.FullName == _folder["run/lock-modules"]);
        // What fork(2) gives the child until it calls execve(2): the same open file.
        var childs = Duplicate(int.Parse(Path.GetFileName(file), CultureInfo.InvariantCulture));

        held.Dispose();
        Locks().Try("modules", shared: false).ShouldNotBeNull().Dispose();

        using var _ = new SafeFileHandle(childs, ownsHandle: true);
    }

    [Fact]
    public void A_lock_that_is_shared_lets_others_share_it_and_nobody_have_it_alone()
    {
        var (one, other) = (Locks(), Locks());
        var held = one.Try("modules", shared: false).ShouldNotBeNull();
        other.Try("modules", shared: true).ShouldBeNull();
        held.Share().ShouldBeTrue();
        var both = other.Try("modules", shared: true).ShouldNotBeNull();
        Locks().Try("modules", shared: false).ShouldBeNull();
        held.Dispose();
        both.Dispose();
        using var alone = Locks().Try("modules", shared: false).ShouldNotBeNull();
    }

    [Fact]
    public void A_cards_lock_is_not_free_while_the_helper_process_of_a_run_that_was_killed_is_still_in_a_call()
    {
        using var hand = Hand.Start(Path.Combine(AppContext.BaseDirectory, "gpu-handoff"));
        // The run itself has gone: what it held is free, what its hand holds is not.
        var kernel = new LinuxKernel(hand);
        new FileLocks(kernel, _folder["run"], hand).Try("gpu-0000:01:00.0", shared: false).ShouldNotBeNull().Dispose();
        // It takes it when it is up, and that is so when it has answered.
        kernel.ReadSlow(new("/proc/sys/kernel/osrelease"), TimeSpan.FromSeconds(20)).ShouldNotBeNull();
        using var other = Hand.Start(Path.Combine(AppContext.BaseDirectory, "gpu-handoff"));
        var locks = new FileLocks(new LinuxKernel(other), _folder["run"], other);

        locks.Try("gpu-0000:01:00.0", shared: false).ShouldBeNull();
        locks.Holder("gpu-0000:01:00.0").ShouldContain("--hand");

        hand.Dispose();
        ILock? held = null;
        SpinWait.SpinUntil(() => (held = locks.Try("gpu-0000:01:00.0", shared: false)) is not null, TimeSpan.FromSeconds(20)).ShouldBeTrue();
        held!.Dispose();
    }

    [Fact]
    public void Only_its_owner_may_look_at_the_folder_of_locks()
    {
        using var held = Locks().Try("modules", shared: false);
        File.GetUnixFileMode(_folder["run"]).ShouldBe(UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
    }

    [DllImport("libc", EntryPoint = "dup")]
    static extern int Duplicate(int file);

    FileLocks Locks() => new(new LinuxKernel(hand: null), _folder["run"]);
}
