using FsCheck.Xunit;
using GpuHandoff.Survey;

namespace GpuHandoff.Core.Tests.Survey;

/// <summary>Which logins a display manager has opened, by logind's files.</summary>
public class ReadingLogins
{
    [Theory]
    [InlineData("gdm-password", true)]
    [InlineData("gdm-launch-environment", true)]
    [InlineData("sddm", true)]
    [InlineData("sddm-autologin", true)]
    [InlineData("lightdm-greeter", true)]
    [InlineData("greetd", true)]
    [InlineData("ly", true)]
    [InlineData("sshd", false)]
    [InlineData("login", false)]
    [InlineData("lyric", false)]
    [InlineData("systemd-user", false)]
    [InlineData("", false)]
    public void A_login_is_graphical_by_who_opened_it(string service, bool graphical)
    {
        var session = LoginSession.Parse("2", $"# This is private data. Do not parse.\nUID=1000\nTYPE=wayland\nSCOPE=session-2.scope\nSERVICE={service}\nDESKTOP=gdm");
        session.ShouldBe(new("user-1000.slice/session-2.scope", service));
        session!.IsGraphical().ShouldBe(graphical);
    }

    [Fact]
    public void A_session_that_calls_itself_graphical_is_none() =>
        LoginSession.Parse("9", "UID=1000\nTYPE=x11\nDISPLAY=:0\nDESKTOP=gnome\nSERVICE=sshd")!.IsGraphical().ShouldBeFalse();

    [Fact]
    public void What_comes_later_does_not_change_who_opened_it() =>
        LoginSession.Parse("9", "UID=1000\nSERVICE=sshd\nDESKTOP=x\nSERVICE=gdm-password\nUID=0")
            .ShouldBe(new("user-1000.slice/session-9.scope", "sshd"));

    [Theory]
    [InlineData("")]
    [InlineData("UID=1000")]
    [InlineData("SERVICE=gdm")]
    [InlineData("UID=-1\nSERVICE=gdm")]
    public void A_file_that_does_not_say_whose_it_is_is_none(string text) => LoginSession.Parse("2", text).ShouldBeNull();

    [Property]
    public void No_text_breaks_the_parser(string? text) => LoginSession.Parse("2", text ?? "");
}
