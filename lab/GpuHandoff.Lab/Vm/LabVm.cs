using System.Diagnostics;
using System.Net.Sockets;
using System.Runtime.CompilerServices;
using System.Text.Json.Nodes;
using GpuHandoff.Lab.Image;
using GpuHandoff.Lab.VirtualGpu;
using GpuHandoff.Machines;

namespace GpuHandoff.Lab.Vm;

/// <summary>A machine with virtual NVIDIA GPUs, up and ready for commands.</summary>
public sealed class LabVm : IDisposable
{
    const int Boots = 2;
    static readonly TimeSpan DefaultLimit = TimeSpan.FromMinutes(2);
    static readonly TimeSpan BootLimit = TimeSpan.FromMinutes(5);
    static readonly TimeSpan SyncInterval = TimeSpan.FromSeconds(5);
    static readonly TimeSpan OtherVmLimit = TimeSpan.FromMinutes(30);

    readonly FileLock turn;
    readonly VmFolder folder;
    readonly List<IReadOnlyList<VirtualFunction>> cards = [];
    readonly Qemu qemu;
    readonly Monitor monitor;
    readonly Agent agent;
    static bool running;
    bool disposed;

    LabVm(LabMachine machine, LabImage image, string accelerator, FileLock turn, bool terminal)
    {
        this.turn = turn;
        Machine = machine;
        Accelerator = accelerator;
        Evidence = LabPlaces.Evidence(machine.Name);
        Directory.CreateDirectory(Evidence);
        folder = new(Path.Combine(Evidence, "console.log"), terminal);
        try
        {
            if (machine.Files.Count > 0)
                LabFile.WriteDisk(folder.Files, machine.Files);
            for (var i = 0; i < machine.Gpus.Count; i++)
            {
                var functions = new List<VirtualFunction>();
                cards.Add(functions);
                foreach (var kind in machine.Gpus[i].Functions)
                {
                    functions.Add(new(kind, Path.Combine(Evidence, $"gpu{i}-{functions.Count}-{kind.Name}.log")));
                    functions[^1].Start();
                }
            }

            var clock = Stopwatch.StartNew();
            var worded = MachineArguments.For(machine, image, accelerator, cards, folder);
            Gpus = worded.Gpus;
            Display = worded.Display;
            qemu = new(worded.Arguments, terminal);
            foreach (var function in cards.SelectMany(card => card))
                function.Inherited();
            monitor = Connect(folder.Monitor, path => new Monitor(path));
            agent = Connect(folder.Agent, path => new Agent(path));
            WaitForAgent(clock);
            BootTime = clock.Elapsed;
        }
        catch
        {
            Stop();
            throw;
        }
    }

    public LabMachine Machine { get; }

    /// <summary>The cards, in the order of <see cref="LabMachine.Gpus"/>.</summary>
    public IReadOnlyList<PluggedGpu> Gpus { get; } = [];

    /// <summary>The place of <see cref="LabMachine.Display"/>; null where there is none.</summary>
    public PciAddress? Display { get; }

    /// <summary><c>kvm</c> or <c>tcg</c> (emulation).</summary>
    public string Accelerator { get; }

    /// <summary>From the start of QEMU to an idle machine.</summary>
    public TimeSpan BootTime { get; }

    /// <summary>The folder with the console's log, the GPUs' traffic, and what a case adds.</summary>
    public string Evidence { get; }

    /// <summary>Why there can be no lab here, by a quick look; null: nothing is known to be in the way.</summary>
    public static string? WhyNot()
    {
        try
        {
            RequirePrograms();
            LabImage.RequirePossible();
            return null;
        }
        catch (LabUnavailable reason)
        {
            return reason.Message;
        }
    }

    /// <summary>Boots the machine, waiting for its turn where another VM of the lab runs.</summary>
    /// <param name="say">Told what is going on, as it may take minutes to build the image.</param>
    /// <param name="terminal">Whether this process's stdin and stdout become the serial console.</param>
    /// <exception cref="LabUnavailable">There is no lab here.</exception>
    public static LabVm Boot(LabMachine machine, Action<string>? say = null, bool terminal = false)
    {
        say ??= _ => { };
        RequirePrograms();
        var image = LabImage.Get(say);

        if (running)
            throw new InvalidOperationException("this process has a VM already; dispose of it first");
        // One at a time: two emulated machines on two processors are slower than one after the other.
        var turn = FileLock.Take(Path.Combine(LabPlaces.Cache, "vm.lock"), OtherVmLimit, "another VM of the lab");
        try
        {
            var accelerator = Vm.Accelerator.Choose(image);
            for (var boot = 1; ; boot++)
            {
                try
                {
                    var vm = new LabVm(machine, image, accelerator, turn, terminal);
                    running = true;
                    say($"up after {vm.BootTime.TotalSeconds:f1} s ({accelerator})");
                    return vm;
                }
                catch (Exception lost) when (boot < Boots && lost is LabVmLost or LabCommandSilent or LabCommandFailed)
                {
                    // Rarely the emulated kernel panics early; the second boot has always been good.
                    say($"boot {boot} failed, trying again: {lost.Message}");
                }
            }
        }
        catch
        {
            turn.Dispose();
            throw;
        }
    }

    /// <summary>Runs a command by bash, as root, and waits for it and for all that holds its output.</summary>
    /// <param name="limit">Two minutes if not given.</param>
    /// <exception cref="LabCommandSilent">It has not ended in that time. It still runs.</exception>
    public LabResult Run(string command, TimeSpan? limit = null) => Start(command).Wait(limit ?? DefaultLimit);

    /// <summary>Starts a command by bash, as root, and leaves it running.</summary>
    public LabCommand Start(string command)
    {
        ThrowIfLost();
        return new(agent, command);
    }

    /// <summary>The content of a file in the guest; also of those in /proc and /sys.</summary>
    public byte[] Collect(string guestPath)
    {
        ThrowIfLost();
        var file = agent.Ask("guest-file-open", new() { ["path"] = guestPath, ["mode"] = "r" })!.GetValue<long>();
        try
        {
            var content = new MemoryStream();
            while (true)
            {
                var part = agent.Ask("guest-file-read", new() { ["handle"] = file, ["count"] = 0x10_0000 })!;
                content.Write(Convert.FromBase64String(part["buf-b64"]!.GetValue<string>()));
                if (part["eof"]!.GetValue<bool>())
                    return content.ToArray();
            }
        }
        finally
        {
            agent.Ask("guest-file-close", new() { ["handle"] = file });
        }
    }

    /// <summary>Writes a file in the guest; its folder is made.</summary>
    public void Put(LabFile target)
    {
        Run($"mkdir -p \"$(dirname '{target.GuestPath}')\"").Ok();
        var file = agent.Ask("guest-file-open", new() { ["path"] = target.GuestPath, ["mode"] = "w" })!.GetValue<long>();
        foreach (var part in target.Content.ToArray().Chunk(0x8_0000))
        {
            agent.Ask("guest-file-write", new() { ["handle"] = file, ["buf-b64"] = Convert.ToBase64String(part) });
        }
        agent.Ask("guest-file-close", new() { ["handle"] = file });
        if (target.MayRun)
            Run($"chmod +x '{target.GuestPath}'").Ok();
    }

    /// <summary>
    /// What the display shows now, kept as <c>NAME.png</c> with the evidence; the machine needs <see cref="LabMachine.Display"/>.
    /// </summary>
    public LabPicture Screendump(string name)
    {
        ThrowIfLost();
        foreach (var (path, format) in new[] { (Path.Combine(Evidence, $"{name}.png"), "png"), (folder.Picture, "ppm") })
            monitor.Ask("screendump", new() { ["filename"] = Path.GetFullPath(path), ["format"] = format });
        return LabPicture.Parse(File.ReadAllBytes(folder.Picture));
    }

    /// <summary>Boots the machine once more; its disk keeps what was written, and the cards are reset.</summary>
    /// <param name="crash">Without a shutdown: what had not reached the disk is lost, as when a host crashes.</param>
    public void Reboot(bool crash = false)
    {
        ThrowIfLost();
        // Else a reset ends QEMU, which is how an early panic is noticed.
        monitor.Ask("set-action", new() { ["reboot"] = "reset" });
        monitor.ForgetEvents();
        if (crash)
            monitor.Ask("system_reset");
        else
            Start("systemctl reboot");
        // The old system's agent must not pass for the new one's.
        monitor.WaitFor("RESET", BootLimit);
        WaitForAgent(Stopwatch.StartNew());
        monitor.Ask("set-action", new() { ["reboot"] = "shutdown" });
    }

    /// <summary>Runs a part of a test; when it fails, the guest's kernel log and process states are kept under its name.</summary>
    public void Case(Action part, [CallerMemberName] string name = "")
    {
        try
        {
            part();
        }
        catch (Exception trouble)
        {
            KeepEvidence(name, trouble);
            throw;
        }
    }

    /// <summary>Writes down what the guest's kernel said and what hangs where, next to the console's log.</summary>
    public void KeepEvidence(string name, Exception? trouble = null)
    {
        var path = Path.Combine(Evidence, $"failed-{name}.txt");
        File.WriteAllText(path, $"{trouble}\n\n");
        try
        {
            var look = Run("""
                dmesg | tail -300
                echo; lspci -nnk
                echo; lsmod
                echo; ps -eo pid,ppid,stat,wchan:32,args
                for p in $(ps -eo pid,stat | awk '$2 ~ /^D/ { print $1 }'); do echo; echo "stack of $p"; cat /proc/$p/stack; done
                """, TimeSpan.FromSeconds(30));
            File.AppendAllText(path, look.ToString());
        }
        catch (Exception also) when (also is LabVmLost or LabCommandSilent or SocketException)
        {
            File.AppendAllText(path, $"nothing more to be had from the guest: {also.Message}\n");
        }
    }

    static void RequirePrograms() => Programs.Require("qemu-system-x86_64", "setpriv");

    /// <summary>Waits until a person has turned the machine off.</summary>
    internal void WaitForEnd() => qemu.WaitForEnd(Timeout.InfiniteTimeSpan);

    void ThrowIfLost()
    {
        ObjectDisposedException.ThrowIf(disposed, this);
        foreach (var function in cards.SelectMany(card => card))
        {
            if (function.Failure is { } failure)
                throw new LabVmLost($"the virtual {function.Kind} failed: {failure.Message}");
        }
        if (qemu.HasEnded)
            throw new LabVmLost($"QEMU has ended: {qemu.Said()}\n{LastWords()}");
    }

    T Connect<T>(string path, Func<string, T> connect)
    {
        var until = DateTime.UtcNow + TimeSpan.FromSeconds(30);
        while (true)
        {
            ThrowIfLost();
            try
            {
                return connect(path);
            }
            catch (SocketException) when (DateTime.UtcNow < until)
            {
                Thread.Sleep(20);
            }
            catch (SocketException)
            {
                throw new LabVmLost($"QEMU does not open {path}");
            }
        }
    }

    void WaitForAgent(Stopwatch clock)
    {
        var asked = -SyncInterval;
        do
        {
            ThrowIfLost();
            if (clock.Elapsed > BootLimit)
                throw new LabVmLost($"the guest's agent does not answer after {BootLimit.TotalMinutes:f0} min\n{LastWords()}");
            if (clock.Elapsed >= asked + SyncInterval)
            {
                // Once more from time to time: a reset forgets what was on its way.
                asked = clock.Elapsed;
                agent.SendSync();
            }
        }
        while (!Answered());

        // The agent is there before udev has loaded the modules for what it found; a case wants a machine at rest.
        Run("udevadm settle --timeout=120", BootLimit).Ok();
    }

    bool Answered()
    {
        try
        {
            return agent.ReceivedSync(TimeSpan.FromMilliseconds(500));
        }
        catch (LabVmLost)
        {
            // What QEMU and the guest said last tells more than a socket that was hung up.
            qemu.WaitForEnd(TimeSpan.FromSeconds(5));
            ThrowIfLost();
            throw;
        }
    }

    string LastWords() => File.Exists(folder.Console)
        ? string.Join('\n', File.ReadLines(folder.Console).TakeLast(20))
        : "";

    void Stop()
    {
        disposed = true;
        if (monitor is not null && !qemu.HasEnded)
        {
            try
            {
                monitor.Ask("quit", new JsonObject());
                qemu.WaitForEnd(TimeSpan.FromSeconds(10));
            }
            catch (Exception trouble) when (trouble is LabVmLost or SocketException)
            {
                // It hung up before it answered, or it hangs: the kill below does not ask.
            }
        }
        agent?.Dispose();
        monitor?.Dispose();
        qemu?.Dispose();
        foreach (var function in cards.SelectMany(card => card))
            function.Dispose();
        folder.Dispose();
    }

    public void Dispose()
    {
        if (disposed)
            return;
        Stop();
        running = false;
        turn.Dispose();
    }
}
