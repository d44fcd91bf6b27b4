using System.Globalization;
using GpuHandoff.Kernel;

namespace GpuHandoff.Survey;

/// <summary>Reads what /proc/PID says of a process (fs/proc/array.c, fs/proc/base.c), and the host's list of accounts.</summary>
public static class ProcessFiles
{
    const int LongestScript = 40;

    static readonly string[] _interpreters = ["python", "java", "node", "ruby", "perl", "php", "bash", "sh", "dash", "dotnet", "mono"];

    // Uid:	1000	1000	1000	1000          real, effective, saved, file system
    public static uint? User(string status) => Real(status, "Uid:");

    /// <summary>The account that a process runs as, by number; null where there is no such process.</summary>
    public static uint? UserOf(int pid, IKernel kernel) =>
        User(kernel.Read(Sys.Proc / pid.ToString(CultureInfo.InvariantCulture) / "status") ?? "");

    // Gid:	1000	1000	1000	1000
    public static uint? Group(string status) => Real(status, "Gid:");

    static uint? Real(string status, string key)
    {
        foreach (var line in status.Split('\n'))
        {
            if (line.StartsWith(key, StringComparison.Ordinal)
                && line[key.Length..].Split('\t', StringSplitOptions.RemoveEmptyEntries) is [var real, ..]
                && uint.TryParse(real, NumberStyles.None, CultureInfo.InvariantCulture, out var user))
            {
                return user;
            }
        }
        return null;
    }

    // ollama:x:997:986::/usr/share/ollama:/bin/false
    public static string? NameOf(uint user, string passwd)
    {
        foreach (var line in passwd.Split('\n'))
        {
            if (line.Split(':') is [{ Length: > 0 } name, _, var number, ..]
                && uint.TryParse(number, NumberStyles.None, CultureInfo.InvariantCulture, out var listed)
                && listed == user)
            {
                return name;
            }
        }
        return null;
    }

    // python3\0-u\0/srv/train.py\0--fast\0
    /// <summary>What an interpreter runs, without its folder; null where the command's name says enough.</summary>
    public static string? Script(string command, string commandLine)
    {
        if (!_interpreters.Any(name => command.StartsWith(name, StringComparison.Ordinal)
            && command[name.Length..].All(c => char.IsAsciiDigit(c) || c == '.')))
        {
            return null;
        }
        var words = commandLine.Split('\0');
        for (var i = 1; i < words.Length; i++)
        {
            // python -m torch.distributed, java -jar server.jar: the next word is the one.
            if (words[i] is "" or "-c" or "-e")
                return null;
            if (!words[i].StartsWith('-'))
                return Plain(words[i][(words[i].TrimEnd('/').LastIndexOf('/') + 1)..]);
        }
        return null;
    }

    /// <summary>A process may call itself what it likes; nothing of it shall reach a terminal as a command.</summary>
    public static string Plain(string text)
    {
        var plain = string.Concat(text.Select(c => char.IsControl(c) ? '?' : c));
        return plain.Length <= LongestScript || plain.StartsWith('/') ? plain : plain[..LongestScript] + "…";
    }
}
