using System.Globalization;

namespace GpuHandoff.Survey;

/// <summary>A login as systemd-logind keeps it in /run/systemd/sessions, where only root writes.</summary>
/// <param name="Scope">Its cgroup below user.slice: <c>user-1000.slice/session-2.scope</c>.</param>
/// <param name="Service">The PAM service that opened it: <c>gdm-password</c>, <c>sshd</c>, <c>login</c>.</param>
public sealed record LoginSession(string Scope, string Service)
{
    // The PAM services of display managers, each with more behind a "-": gdm-password, gdm-launch-environment, sddm-autologin,
    // lightdm-greeter, greetd-greeter. TYPE= would not do: a session's own controller sets that (org.freedesktop.login1(5), SetType).
    static readonly string[] _displayManagers =
        ["gdm", "gdm3", "sddm", "lightdm", "lxdm", "xdm", "greetd", "ly", "slim", "nodm", "plasmalogin", "cosmic-greeter"];

    /// <summary>Whether a display manager has opened it. How a session looks is its user's choice, and who opened it is not.</summary>
    public bool IsGraphical() => _displayManagers.Any(name => Service == name || Service.StartsWith($"{name}-", StringComparison.Ordinal));

    // # This is private data. Do not parse.                    sd-login reads it, too (sd-login.c:session_get_string)
    // UID=1000
    // TYPE=x11
    // SCOPE=session-2.scope
    // SERVICE=gdm-password
    /// <summary>A session from its file.</summary>
    /// <param name="id">The file's name.</param>
    /// <param name="text">What a session chooses itself is escaped in it (logind-session.c:session_save): it makes no line of its own.</param>
    /// <returns>Null where it does not say whose it is, or who opened it.</returns>
    public static LoginSession? Parse(string id, string text)
    {
        var said = new Dictionary<string, string>(StringComparer.Ordinal);
        foreach (var line in text.Split('\n'))
        {
            if (line.Split('=', 2) is [var key, var value])
                said.TryAdd(key, value.Trim('"'));
        }
        return uint.TryParse(said.GetValueOrDefault("UID"), NumberStyles.None, CultureInfo.InvariantCulture, out var user)
            && said.TryGetValue("SERVICE", out var service)
            ? new($"user-{user}.slice/{said.GetValueOrDefault("SCOPE", $"session-{id}.scope")}", service)
            : null;
    }
}
