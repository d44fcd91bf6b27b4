using System.Buffers.Binary;
using System.Globalization;
using System.Text;
using GpuHandoff.Kernel;
using GpuHandoff.Linux.Interop;
using GpuHandoff.Machines;
using GpuHandoff.Survey;

namespace GpuHandoff.Linux;

/// <summary>The live machine. Reads are made here; whatever may block goes through the hand.</summary>
/// <param name="hand">Null: a machine to look at. Every change is refused.</param>
public sealed class LinuxKernel(Hand? hand) : IKernel
{
    const int LongestLink = 4096;

    // modprobe --dry-run reads files, and a file system may hang as well as a card.
    static readonly TimeSpan _lookUp = TimeSpan.FromSeconds(10);

    // systemd answers in milliseconds; systemctl is asked after it.
    static readonly TimeSpan _answers = TimeSpan.FromSeconds(2);

    // The kernel itself waits 60 s for a device to come back (pci.c:pci_dev_wait).
    static readonly TimeSpan _reset = TimeSpan.FromSeconds(65);

    Hand? _eyes;
    Hand? _eyesForOthers;

    public TimeSpan Uptime
    {
        get
        {
            _ = Libc.ClockGetTime(Libc.SinceBoot, out var time);
            return new TimeSpan(time.Seconds * TimeSpan.TicksPerSecond + time.Nanoseconds / TimeSpan.NanosecondsPerTick);
        }
    }

    public string? Read(SysPath file)
    {
        var handle = Libc.Open(file.Text, Libc.ReadOnly | Libc.CloseOnExec | Libc.NonBlocking);
        if (handle < 0)
            return Libc.LastError() is var errno && IsAbsent(errno, file) ? null : throw Refused($"read {file}", errno);
        try
        {
            // Most of sysfs fits at once; /proc/modules and pci.ids do not.
            var text = new MemoryStream();
            Span<byte> buffer = stackalloc byte[4096];
            while (true)
            {
                var got = Libc.Read(handle, buffer, buffer.Length);
                if (got == 0)
                    break;
                if (got < 0)
                {
                    // Some attributes are there and say no (power_state of a lost device, a folder): as good as absent.
                    return Libc.LastError() is var errno && errno is Errno.Invalid or Errno.NoDevice or Errno.InputOutput or IsFolder or NoProcess || IsAbsent(errno, file)
                        ? null
                        : throw Refused($"read {file}", errno);
                }
                text.Write(buffer[..(int)got]);
            }
            var said = Encoding.UTF8.GetString(text.GetBuffer().AsSpan(0, (int)text.Length));
            return said.EndsWith('\n') ? said[..^1] : said;
        }
        finally
        {
            _ = Libc.Close(handle);
        }
    }

    public string? ReadSlow(SysPath file, TimeSpan budget) =>
        EyesFor(file).Ask($"read {file}", budget, Uptime, "read", file.Text) is [var text] ? text : null;

    // Config space, where it is, waits for a reset that somebody has begun (drivers/pci/access.c:pci_wait_cfg).
    public byte[]? ReadBytes(SysPath file, int count) =>
        HandOrEyes().Ask($"read {file}", _reset, Uptime, "bytes", file.Text, count.ToString(CultureInfo.InvariantCulture)) is [var text]
            ? Convert.FromHexString(text)
            : null;

    // One that only looks may be kept waiting, too.
    Hand HandOrEyes() => hand ?? (_eyes ??= Hand.Start(Ourselves));

    // What the kernel does not keep itself lies in file systems of others' (pmxcfs below /etc/pve), and one of those that
    // hangs tells nothing of a card: whoever is lost there must not be the one that the run has yet to make its calls with.
    Hand EyesFor(SysPath file) => IsTheKernels(file.Text) ? HandOrEyes() : _eyesForOthers ??= Hand.Start(Ourselves);

    static bool IsTheKernels(string file) => file.StartsWith("/sys/", StringComparison.Ordinal) || file.StartsWith("/proc/", StringComparison.Ordinal);

    /// <summary>The program that can be a hand.</summary>
    public string Ourselves { get; init; } = Environment.ProcessPath ?? "/proc/self/exe";

    public IReadOnlyList<string> List(SysPath folder)
    {
        // Nothing where there is no folder, or one of a process that ended while we listed it. Other users' /proc/PID/fd, where we
        // are not root: what we may not see, we do not list.
        var names = FolderNames.In(folder.Text);
        names?.Sort(StringComparer.Ordinal);
        return names ?? [];
    }

    public string? Link(SysPath link)
    {
        Span<byte> buffer = stackalloc byte[LongestLink];
        var length = Libc.ReadLink(link.Text, buffer, buffer.Length);
        return length < 0 ? null : Encoding.UTF8.GetString(buffer[..(int)length]);
    }

    public bool Exists(SysPath path) =>
        Libc.Statx(Libc.FromCurrentFolder, path.Text, Libc.NoFollow, Libc.BasicStatus, out _) == 0;

    public FileIdentity? IdentityOf(SysPath path) =>
        Libc.Statx(Libc.FromCurrentFolder, path.Text, 0, Libc.BasicStatus, out var status) == 0
            ? new(status.FileSystemMajor, status.FileSystemMinor, status.Inode, status.Modified())
            : null;

    public DeviceNode? NodeAt(SysPath path) =>
        Libc.Statx(Libc.FromCurrentFolder, path.Text, Libc.DoNotSync, Libc.BasicStatus, out var status) == 0 && status.IsCharacterDevice
            ? Node(status)
            : null;

    /// <summary>
    /// One system call for each entry, and no text: a busy machine has hundreds of thousands of descriptors. What is kept is one entry
    /// for each wanted device, however many descriptors hold it.
    /// </summary>
    public IReadOnlyList<OpenDevice> OpenIn(SysPath descriptors, Func<uint, uint, bool> wanted, Looking looking)
    {
        var handle = Libc.Open(descriptors.Text, Libc.ReadOnly | Libc.CloseOnExec | Libc.Folder);
        if (handle < 0)
            return [];
        try
        {
            List<OpenDevice>? nodes = null;
            var info = new SysPath(descriptors.Text + "info");
            Span<byte> buffer = stackalloc byte[8192];
            // A folder that cannot be listed to its end has ended with its process.
            while (!looking.IsGivenUp && Libc.GetDents(handle, buffer, buffer.Length) is > 0 and var got)
            {
                looking.Proceeds();
                for (var rest = buffer[..(int)got]; rest.Length > 0; rest = rest[BinaryPrimitives.ReadUInt16LittleEndian(rest[Libc.DirentLength..])..])
                {
                    var name = rest[Libc.DirentName..];
                    if (name[0] == '.'
                        || Libc.StatxName(handle, in name[0], Libc.DoNotSync, Libc.BasicStatus, out var status) != 0
                        || !status.IsCharacterDevice
                        || !wanted(status.DeviceMajor, status.DeviceMinor))
                    {
                        continue;
                    }
                    var number = Encoding.UTF8.GetString(name[..name.IndexOf((byte)0)]);
                    if (!OpenDevice.Holds(ReadInfo(info / number)))
                        continue;
                    var node = Node(status);
                    var known = nodes?.FindIndex(n => n.Node.IsSameDevice(node)) ?? -1;
                    if (known >= 0)
                        nodes![known] = nodes[known].And((descriptors / number).Text);
                    else
                        (nodes ??= []).Add(new([(descriptors / number).Text], node, 1));
                }
            }
            return nodes ?? [];
        }
        finally
        {
            _ = Libc.Close(handle);
        }
    }

    public bool IsSameFile(SysPath descriptor, SysPath other) =>
        Descriptor(descriptor) is var (process, file) && Descriptor(other) is var (second, otherFile)
        && Libc.Compare(process, second, Libc.OpenFiles, file, otherFile) == 0;

    // /proc/4211/fd/7, /proc/4211/task/4212/fd/7: kcmp(2) takes the number of a thread, too.
    static (int Process, nuint File)? Descriptor(SysPath path) => path.Text.Split('/') is [.., var process, "fd", var file]
        && (process == "self" ? Environment.ProcessId : int.TryParse(process, NumberStyles.None, CultureInfo.InvariantCulture, out var pid) ? pid : 0) is > 0 and var number
        && nuint.TryParse(file, NumberStyles.None, CultureInfo.InvariantCulture, out var descriptor)
            ? (number, descriptor)
            : null;

    // Without permission to look at it, it counts as one that holds.
    string? ReadInfo(SysPath file)
    {
        try
        {
            return Read(file);
        }
        catch (KernelRefused)
        {
            return null;
        }
    }

    public bool ReadLines(SysPath file, OfLine line, Looking looking) => Lines.Read(file, line, looking);

    public IReadOnlyList<int> Look(int count, Action<int, Looking> look) => new Looks(count, look).Make();

    public void Write(SysPath file, string text, TimeSpan budget, LastLook? look = null)
    {
        var saying = $"write \"{text.TrimEnd('\n')}\" to {file}";
        string[] request = ["write", file.Text, text];
        if (look is not null)
            request = [.. request, look.Empty?.Text ?? "", .. look.Modules.Select(m => $"{m.Module}={m.Users.ToString(CultureInfo.InvariantCulture)}")];
        try
        {
            Ask(saying, budget, request);
        }
        catch (KernelRefused refused) when (refused.Errno == RiskyCalls.LastLookFailed)
        {
            throw new StillInUse(saying, refused.Reason);
        }
    }

    public bool CanLoad(string module)
    {
        if (ModprobeProgram.Find() is not { } modprobe)
            return false;
        string[] arguments = ["--dry-run", "--quiet", "--", module];
        return RiskyCalls.Run(modprobe, arguments, _lookUp, "", []) switch
        {
            ProgramEnd.Ended(var exit, _) => exit == 0,
            ProgramEnd.Refused(var errno, var reason) => throw new KernelRefused($"modprobe --dry-run {module}", errno, reason),
            ProgramEnd.Silent(var pid, var isOver) => throw new ProgramSilent($"modprobe --dry-run {module}", modprobe, pid, _lookUp, isOver),
            _ => throw new InvalidOperationException("a program ends in one of three ways"),
        };
    }

    public void LoadModule(string module, IReadOnlyList<string> parameters, TimeSpan budget) =>
        Ask(string.Join(' ', ["modprobe", module, .. parameters]), budget, ["modprobe", "--", module, .. parameters]);

    public void UnloadModule(string module, TimeSpan budget) => Ask($"delete_module {module}", budget, "rmmod", module);

    public void MakeNode(SysPath path, DeviceNode node)
    {
        var call = $"mknod {path} c {node.Major} {node.Minor}";
        Check(call, Libc.MakeNode(path.Text, Libc.CharacterDevice | node.Mode, Libc.DeviceNumber(node.Major, node.Minor)));
        Check(call, Libc.ChangeOwner(path.Text, node.Owner, node.Group));
        // After the owner: a change of owner may clear bits, and mknod went through our umask.
        Check(call, Libc.ChangeMode(path.Text, node.Mode));
    }

    public void RemoveNode(SysPath path)
    {
        if (Libc.Unlink(path.Text) != 0 && Libc.LastError() is var errno && errno != Errno.NoEntry)
            throw Refused($"unlink {path}", errno);
    }

    public FileStatus? StatusOf(SysPath path) =>
        Libc.Statx(Libc.FromCurrentFolder, path.Text, Libc.NoFollow, Libc.BasicStatus, out var status) == 0
            ? new(status.IsFile ? FileKind.File : status.IsFolder ? FileKind.Folder : status.IsLink ? FileKind.Link : FileKind.Other, status.Owner, status.Permissions)
            : null;

    public void MakeFolder(SysPath folder)
    {
        const uint ownerWrites = 0x1ed;
        Change($"mkdir {folder}", () => Libc.MakeFolder(folder.Text, ownerWrites));
        // mkdir went through our umask.
        Change($"mkdir {folder}", () => Libc.ChangeMode(folder.Text, ownerWrites));
    }

    public void RemoveFolder(SysPath folder) => Change($"rmdir {folder}", () => Libc.RemoveFolder(folder.Text), Errno.NoEntry);

    public void MakeLink(SysPath link, string target)
    {
        var call = $"symlink {link} → {target}";
        if (Link(link) is null)
        {
            Change(call, () => Libc.SymbolicLink(target, link.Text));
            return;
        }
        // By a rename: whoever follows the link at this moment finds the one or the other.
        var fresh = $"{link}.new";
        if (Link(new(fresh)) is not null)
            Change($"unlink {fresh}", () => Libc.Unlink(fresh), Errno.NoEntry);
        Change(call, () => Libc.SymbolicLink(target, fresh));
        Change(call, () => Libc.Rename(fresh, link.Text));
    }

    public void RemoveLink(SysPath link)
    {
        if (Link(link) is not null)
            Change($"unlink {link}", () => Libc.Unlink(link.Text), Errno.NoEntry);
        else if (Exists(link))
            throw Refused($"unlink {link}", Errno.Exists);
    }

    // A machine to look at has no hand and asks by itself: a program is a process of its own already, and nvidia-smi's word
    // belongs to what a plan goes by. Whoever changes something has a hand.
    public ProgramResult RunProgram(
        string program, IReadOnlyList<string> arguments, TimeSpan budget, string input = "", IReadOnlyList<string>? environment = null)
    {
        var saying = $"{program} {string.Join(' ', arguments)}";
        string[] request =
        [
            "run", ((long)budget.TotalMilliseconds).ToString(), input, (environment?.Count ?? 0).ToString(), .. environment ?? [],
            program, .. arguments,
        ];
        var end = hand is null
            ? RiskyCalls.Run(program, arguments, budget, input, environment ?? [])
            : ProgramEnd.OfMessage(hand.Ask(saying, budget + RiskyCalls.UntilKilled + _onTheWay, Uptime, request));
        return end switch
        {
            ProgramEnd.Ended(var exit, var output) => new(exit, output),
            ProgramEnd.Refused(var errno, var reason) => throw new KernelRefused(saying, errno, reason),
            ProgramEnd.Silent(var pid, var isOver) => throw new ProgramSilent(saying, program, pid, budget, isOver),
            _ => throw new InvalidOperationException("a program ends in one of three ways"),
        };
    }

    public string? SystemState()
    {
        using var systemd = SystemdBus.To();
        return systemd?.Ask("SystemState", _answers);
    }

    public void Signal(int pid, ulong startedAt, ProcessSignal signal)
    {
        // 0 and below are groups, and 1 is everybody's.
        ArgumentOutOfRangeException.ThrowIfLessThanOrEqual(pid, 1);
        var saying = $"send {signal} to process {pid}";
        if (hand is null)
            throw new KernelRefused(saying, Errno.ReadOnly, "this run only looks");
        var process = Libc.OpenProcess(pid, 0);
        if (process < 0)
        {
            if (Libc.LastError() is var errno && errno != NoProcess)
                throw Refused(saying, errno);
            return;
        }
        try
        {
            // Looked at after it was opened: from then on the descriptor means this process, whoever gets the PID.
            if (ProcessStat.Of(pid, this) is not { } now || now.Started != startedAt)
                return;
            if (Libc.SignalProcess(process, (int)signal, 0, 0) != 0 && Libc.LastError() is var errno && errno != NoProcess)
                throw Refused(saying, errno);
        }
        finally
        {
            _ = Libc.Close(process);
        }
    }

    public string Converse(SysPath socket, string text, Func<string, bool> isAll, TimeSpan budget) =>
        UnixSocket.Converse(socket.Text, text, isAll, budget);

    public void SetAffinity(int thread, IReadOnlyList<int> processors)
    {
        // 0 is ourselves.
        ArgumentOutOfRangeException.ThrowIfLessThan(thread, 1);
        var saying = $"sched_setaffinity of thread {thread}";
        if (hand is null)
            throw new KernelRefused(saying, Errno.ReadOnly, "this run only looks");
        var mask = new byte[(processors.Max() / 64 + 1) * 8];
        foreach (var processor in processors)
            mask[processor / 8] |= (byte)(1 << (processor % 8));
        Check(saying, Libc.SetAffinity(thread, (nuint)mask.Length, mask));
    }

    public void Pause(TimeSpan time) => Thread.Sleep(time);

    /// <summary>Asleep in the kernel until then: who stays with a VM for weeks costs nothing but its memory.</summary>
    public bool AwaitEnd(int pid, ulong startedAt, TimeSpan limit)
    {
        var process = Libc.OpenProcess(pid, 0);
        if (process < 0)
            return false;
        try
        {
            // Looked at after it was opened, as in Signal. pidfd_open(2): readable when the process is a zombie, or gone.
            var watched = new Watched { File = process, Wanted = Libc.Readable };
            return ProcessStat.Lives(pid, startedAt, this)
                && Libc.Poll(ref watched, 1, (int)Math.Clamp(limit.TotalMilliseconds, 0, int.MaxValue)) >= 0;
        }
        finally
        {
            _ = Libc.Close(process);
        }
    }

    void Ask(string saying, TimeSpan budget, params ReadOnlySpan<string> parts)
    {
        if (hand is null)
            throw new KernelRefused(saying, Errno.ReadOnly, "this run only looks");
        hand.Ask(saying, budget, Uptime, parts);
    }

    // What the hand has found out, on its way to us.
    static readonly TimeSpan _onTheWay = TimeSpan.FromSeconds(2);

    // A process that ends while it is looked at.
    const int NoProcess = 3;
    const int IsFolder = 21;

    // What others may not read (nvidia_drm's parameters) is not there for them; root reads everything, or has to know why not.
    // A process may be closed to root, too (Yama, a container without CAP_SYS_PTRACE), and can end while it is looked at.
    static bool IsAbsent(int errno, SysPath file) => errno is Errno.NoEntry or Errno.NotDirectory or Errno.NoDevice or NoProcess
        || (errno is Errno.AccessDenied or Errno.NotPermitted && IsOfProcess(file.Text))
        || (errno == Errno.AccessDenied && !RootUser.IsUs());

    static bool IsOfProcess(string file) =>
        file.StartsWith("/proc/", StringComparison.Ordinal) && file.Length > "/proc/".Length && char.IsAsciiDigit(file["/proc/".Length]);

    static DeviceNode Node(Status status) =>
        new(status.DeviceMajor, status.DeviceMinor, status.Permissions, status.Owner, status.Group);

    static KernelRefused Refused(string call, int errno) => new(call, errno, Errno.Say(errno));

    /// <summary>Makes a change of ours that cannot hang.</summary>
    /// <param name="fine">The error that means that there was nothing to do.</param>
    void Change(string call, Func<int> act, int fine = 0)
    {
        if (hand is null)
            throw new KernelRefused(call, Errno.ReadOnly, "this run only looks");
        if (act() != 0 && Libc.LastError() is var errno && errno != fine)
            throw Refused(call, errno);
    }

    static void Check(string call, int result)
    {
        if (result != 0)
            throw Refused(call, Libc.LastError());
    }
}
