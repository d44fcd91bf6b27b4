using GpuHandoff.Machines;
using GpuHandoff.Survey;

namespace GpuHandoff.Kernel;

/// <summary>
/// The only door to a machine: low, narrow and synchronous, because one run does one thing at a time. What may block
/// inside the kernel takes a budget and is made where the caller cannot be blocked with it; everything above this door,
/// the sysfs protocol included, is our code and runs against the simulator.
/// </summary>
/// <remarks>
/// A call that the kernel refuses throws <see cref="KernelRefused"/>. Silence has three kinds: a call that may hold a GPU and
/// does not return within its budget throws <see cref="KernelSilent"/>, and the kernel may still be at it; a program that does
/// not end is a <see cref="ProgramSilent"/>, a helper process that does not answer a <see cref="HelperSilent"/>.
/// </remarks>
public interface IKernel
{
    /// <summary>The text of a file without its last newline; null where there is no such file.</summary>
    string? Read(SysPath file);

    /// <summary>
    /// The same of a file whose reading may wait for a device's lock: an override on kernels that take the lock for it
    /// (drivers/base/driver.c:driver_set_override before 6.12.94), or what nvidia tells of a card.
    /// </summary>
    string? ReadSlow(SysPath file, TimeSpan budget);

    /// <summary>The first bytes of a file, at most so many; null where there is no such file.</summary>
    byte[]? ReadBytes(SysPath file, int count);

    /// <summary>The names in a folder in ordinal order; empty where there is no such folder.</summary>
    IReadOnlyList<string> List(SysPath folder);

    /// <summary>A symbolic link's target as it is written; null where there is no such link.</summary>
    string? Link(SysPath link);

    /// <summary>Whether there is a file, a folder or a link.</summary>
    bool Exists(SysPath path);

    /// <summary>Which file a path leads to, links followed; null where there is none.</summary>
    FileIdentity? IdentityOf(SysPath path);

    /// <summary>The character device behind a path, links followed; null where there is none.</summary>
    DeviceNode? NodeAt(SysPath path);

    /// <summary>
    /// The wanted character devices that a table of descriptors (/proc/PID/fd, /proc/PID/task/TID/fd) holds open, each once. One
    /// that was opened with O_PATH holds nothing and does not count.
    /// </summary>
    /// <param name="wanted">Asked with major and minor; a busy process has 100,000 descriptors, and nearly none is a wanted device.</param>
    /// <param name="looking">Is told of the progress, and ends the look where it was given up.</param>
    IReadOnlyList<OpenDevice> OpenIn(SysPath descriptors, Func<uint, uint, bool> wanted, Looking looking)
    {
        var info = new SysPath(descriptors.Text + "info");
        return
        [
            .. from name in List(descriptors)
               let node = NodeAt(descriptors / name)
               where node is not null && wanted(node.Major, node.Minor) && OpenDevice.Holds(Read(info / name))
               group (name, node) by (node.Major, node.Minor) into same
               select new OpenDevice([.. same.Take(OpenDevice.Listed).Select(s => (descriptors / s.name).Text)], same.First().node, same.Count()),
        ];
    }

    /// <summary>
    /// Whether two descriptors (/proc/PID/fd/N) lead to the same open file (kcmp(2), KCMP_FILE): one that was duplicated or inherited.
    /// False also where the kernel does not tell.
    /// </summary>
    bool IsSameFile(SysPath descriptor, SysPath other) => false;

    /// <summary>Reads a file line by line, without ever holding all of it: /proc/PID/maps of one process can have 100 MB.</summary>
    /// <returns>Whether it was read to its end; a file that is not there counts as an empty one.</returns>
    bool ReadLines(SysPath file, OfLine line, Looking looking)
    {
        var text = (Read(file) ?? "").AsSpan();
        foreach (var range in text.Split('\n'))
            line(text[range]);
        return true;
    }

    /// <summary>Makes looks that only read, and do not depend on each other: several at a time, where that is quicker.</summary>
    /// <returns>Those that were given up, because the kernel did not answer.</returns>
    IReadOnlyList<int> Look(int count, Action<int, Looking> look)
    {
        for (var i = 0; i < count; i++)
            look(i, Looking.Alone);
        return [];
    }

    /// <summary>Writes <paramref name="text"/> with a single write(2), as sysfs wants it.</summary>
    /// <param name="look">What must hold right before it; where it does not, <see cref="StillInUse"/> is thrown and nothing is written.</param>
    void Write(SysPath file, string text, TimeSpan budget, LastLook? look = null);

    /// <summary>Whether modprobe would find a module by this name or alias. Loads nothing.</summary>
    bool CanLoad(string module);

    /// <summary>modprobe MODULE PARAMETERS; no error where it is loaded already.</summary>
    void LoadModule(string module, IReadOnlyList<string> parameters, TimeSpan budget);

    /// <summary>delete_module(2) with O_NONBLOCK: EAGAIN where it is in use, with nothing changed.</summary>
    /// <remarks>kernel/module/main.c: the reference count is tested before anything is taken down.</remarks>
    void UnloadModule(string module, TimeSpan budget);

    /// <summary>mknod(2) with the node's owner and mode.</summary>
    void MakeNode(SysPath path, DeviceNode node);

    /// <summary>unlink(2) of a device node; no error where it is gone already.</summary>
    void RemoveNode(SysPath path);

    /// <summary>What there is at a path, a link itself and not what it leads to; null where there is nothing.</summary>
    FileStatus? StatusOf(SysPath path);

    /// <summary>mkdir(2), mode 0755; EEXIST where there is something.</summary>
    void MakeFolder(SysPath folder);

    /// <summary>rmdir(2): only an empty folder goes. No error where it is gone already.</summary>
    void RemoveFolder(SysPath folder);

    /// <summary>symlink(2), at once in the place of another link; EEXIST where there is anything else.</summary>
    void MakeLink(SysPath link, string target);

    /// <summary>unlink(2) of a symbolic link, and of nothing else. No error where it is gone already.</summary>
    void RemoveLink(SysPath link);

    /// <summary>Runs a program by its absolute path to its end: no shell, and nothing in its environment but PATH and LC_ALL=C.</summary>
    /// <remarks>
    /// One that takes longer than its budget is killed and counts as refused, as a <see cref="ProgramSilent"/>, whether SIGKILL
    /// has ended it or not: it says nothing of a GPU.
    /// </remarks>
    /// <param name="input">What it reads from its stdin; empty: it gets /dev/null.</param>
    /// <param name="environment">What it gets to know besides, as <c>NAME=VALUE</c>.</param>
    ProgramResult RunProgram(
        string program, IReadOnlyList<string> arguments, TimeSpan budget, string input = "", IReadOnlyList<string>? environment = null);

    /// <summary>
    /// What systemd says of the host as a whole (systemctl(1), is-system-running), without starting a program for it; null: it is
    /// not to be had so.
    /// </summary>
    string? SystemState() => null;

    /// <summary>
    /// Signals the process that began at that time (/proc/PID/stat, field 22); no error where it has ended, and nothing for
    /// a stranger that has its PID by now.
    /// </summary>
    void Signal(int pid, ulong startedAt, ProcessSignal signal);

    /// <summary>
    /// Says something to whoever listens at a Unix socket, and hears what comes back until that is all, or the other side hangs
    /// up. One that does not say all within the budget is refused: nothing of the kernel's hangs there.
    /// </summary>
    string Converse(SysPath socket, string text, Func<string, bool> isAll, TimeSpan budget);

    /// <summary>sched_setaffinity(2): where a thread may run from now on.</summary>
    void SetAffinity(int thread, IReadOnlyList<int> processors);

    void Pause(TimeSpan time);

    /// <summary>Waits until the process that began at that time has ended, or for so long.</summary>
    /// <returns>False: nothing was waited for, because it is gone, or the kernel would not have it (no file to spare).</returns>
    bool AwaitEnd(int pid, ulong startedAt, TimeSpan limit)
    {
        var (between, waited) = (TimeSpan.FromSeconds(2), false);
        for (var until = Uptime + limit; Uptime < until && ProcessStat.Lives(pid, startedAt, this); waited = true)
            Pause(until - Uptime is var left && left < between ? left : between);
        return waited;
    }

    /// <summary>Time since boot (CLOCK_BOOTTIME).</summary>
    TimeSpan Uptime { get; }
}

/// <summary>Takes one line of a file, without its newline.</summary>
public delegate void OfLine(ReadOnlySpan<char> line);
