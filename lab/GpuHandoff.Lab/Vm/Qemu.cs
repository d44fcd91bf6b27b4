using System.Diagnostics;
using System.Text;

namespace GpuHandoff.Lab.Vm;

/// <summary>The running QEMU. It dies with us, even when we are killed.</summary>
sealed class Qemu : IDisposable
{
    readonly StringBuilder said = new();
    readonly ManualResetEventSlim started = new();
    readonly ManualResetEventSlim ended = new();
    Process? process;
    Exception? failure;

    /// <summary>Starts it.</summary>
    /// <param name="terminal">Whether QEMU gets our stdin and stdout, for a person at the serial console.</param>
    public Qemu(IEnumerable<string> arguments, bool terminal)
    {
        // A thread of its own that lasts as long as QEMU: the kernel sends the death signal when the *thread* that
        // forked ends (prctl(2), PR_SET_PDEATHSIG), and the pool's threads come and go.
        new Thread(() => Watch([.. arguments], terminal)) { IsBackground = true, Name = "QEMU" }.Start();
        started.Wait();
        if (failure is not null)
            throw new LabUnavailable($"QEMU does not start: {failure.Message}", "run lab/install-needs");
    }

    public bool HasEnded => ended.IsSet;

    /// <summary>What QEMU itself said (not the guest).</summary>
    public string Said()
    {
        lock (said)
            return said.ToString().Trim();
    }

    public bool WaitForEnd(TimeSpan limit) => ended.Wait(limit);

    void Watch(string[] arguments, bool terminal)
    {
        try
        {
            process = Process.Start(new ProcessStartInfo("setpriv", ["--pdeathsig", "KILL", "--", "qemu-system-x86_64", .. arguments])
            {
                RedirectStandardInput = !terminal,
                RedirectStandardOutput = !terminal,
                RedirectStandardError = !terminal,
            })!;
            if (!terminal)
            {
                process.StandardInput.Close();
                process.OutputDataReceived += Hear;
                process.ErrorDataReceived += Hear;
                process.BeginOutputReadLine();
                process.BeginErrorReadLine();
            }
        }
        catch (Exception trouble)
        {
            failure = trouble;
            return;
        }
        finally
        {
            started.Set();
        }
        process.WaitForExit();
        ended.Set();
    }

    void Hear(object sender, DataReceivedEventArgs line)
    {
        lock (said)
            said.AppendLine(line.Data);
    }

    public void Dispose()
    {
        if (!ended.IsSet)
            process?.Kill();
        ended.Wait(TimeSpan.FromSeconds(10));
        process?.Dispose();
        started.Dispose();
        ended.Dispose();
    }
}
